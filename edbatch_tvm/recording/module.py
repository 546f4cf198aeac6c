"""A module that stands for another one: the base of what :func:`edbatch_tvm.autobatch` returns."""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

_SHARED = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
"""What a module keeps its parameters, buffers and submodules in."""

_OWN = frozenset(vars(torch.nn.Module()))
"""What every module has for itself."""


class StandIn(torch.nn.Module):
    """A module with the parameters, buffers and submodules of another, under the same names, and its mode.

    So ``state_dict`` has the keys of the other's, and what is loaded, moved or switched is the other. Hooks are its
    own. Attributes that it does not have are the other's, read and set.

    Parameters
    ----------
    model : torch.nn.Module
        The other.

    Attributes
    ----------
    model : torch.nn.Module
    """

    model: torch.nn.Module

    def __init__(self, model: torch.nn.Module) -> None:
        self.__dict__["model"] = model
        super().__init__()
        self._share()

    def _share(self) -> None:
        self.__dict__.pop("training", None)
        self.__dict__.update((name, vars(self.model)[name]) for name in _SHARED)

    # Attributes -------------------------------------------------------------------------------------------------

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""
        return self.model.training

    @training.setter
    def training(self, mode: bool) -> None:
        if "_modules" in vars(self):  # else Module.__init__ sets what every new module is
            self.model.training = mode

    def __getattr__(self, name: str) -> Any:
        if "model" not in vars(self) or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        try:
            found = getattr(vars(self)["model"], name)
        except AttributeError as error:
            raise AttributeError(f"{type(self).__name__} of {error}") from None
        if isinstance(found, types.MethodType) and found.__self__ is vars(self)["model"]:
            return self._method(name)
        return found

    def _method(self, name: str) -> Callable[..., Any]:
        """What stands for a method of the model."""
        method: Callable[..., Any] = getattr(self.model, name)
        return method

    @classmethod
    @cache
    def _attributes(cls) -> frozenset[str]:
        """Names of attributes of its own."""
        return frozenset(name for kind in cls.__mro__ for name in vars(kind).get("__annotations__", ()))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN or name in vars(self) or hasattr(type(self), name) or name in self._attributes():
            object.__setattr__(self, name, value)
        else:
            setattr(self.model, name, value)

    def __delattr__(self, name: str) -> None:
        if name in vars(self):
            object.__delattr__(self, name)
        else:
            delattr(self.model, name)

    # What modules can do ----------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> StandIn:
        """Switch the model."""
        self.model.train(mode)
        return self

    def apply(self, fn: Callable[[torch.nn.Module], None]) -> StandIn:
        """Apply a function to the model and its submodules."""
        self.model.apply(fn)
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> StandIn:
        """What ``to``, ``float``, ``cpu`` and the like do, on the model."""
        self.model._apply(fn, recurse)
        return self

    def state_dict(self, *arguments: Any, **named: Any) -> Any:
        """The parameters and buffers of the model, under its names."""
        return self.model.state_dict(*arguments, **named)

    def load_state_dict(self, *arguments: Any, **named: Any) -> Any:
        """Load parameters and buffers into the model."""
        return self.model.load_state_dict(*arguments, **named)

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        self.model._load_from_state_dict(*arguments, **named)

    # Copies and files -------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _SHARED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._share()
