"""What a PyTorch module computes, parameters' values aside: modules of one structure export to one program."""

from __future__ import annotations

import dataclasses
import types
from collections import OrderedDict
from collections.abc import Hashable
from functools import partial
from typing import Any

MOST_BYTES = 1 << 20
"""A tensor that is no parameter is compared by value up to this size, and by identity beyond it."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Attributes of a module that hold code which runs when it is called, or differentiated."""


def module_structure(torch: Any, *things: Any) -> Hashable:
    """Equal for modules (and what goes with them) that compute the same function of their parameters.

    Modules are equal if they are of one class with equal attributes, buffers and submodules, and have parameters of
    equal shape and dtype, of which the same ones are tied. What cannot be compared is equal to itself alone.

    Parameters
    ----------
    torch : module
    *things
        A module, its arguments, and whatever else its code depends on.
    """
    return _Reader(torch).key(things)


@dataclasses.dataclass(frozen=True, eq=False)
class Alone:
    """Something that is equal to itself alone, kept alive so that no other thing gets its address."""

    thing: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alone) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)


class _Reader:
    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.number: dict[int, int] = {}
        """Modules, parameters and containers met so far, by address: the second time one is its number."""

    def key(self, thing: Any) -> Hashable:
        torch = self.torch
        if thing is None or type(thing) in (bool, int, str, bytes):
            return type(thing), thing
        if type(thing) in (float, complex):
            return type(thing), repr(thing)  # -0.0 is not 0.0, and NaN is NaN
        if isinstance(thing, type | types.BuiltinFunctionType | torch.dtype | torch.device):
            return thing
        if isinstance(thing, types.MethodType):
            return "method", Alone(thing.__func__), self.key(thing.__self__)
        if type(thing) is slice or (isinstance(thing, tuple) and not hasattr(thing, "__dict__")):
            parts = (thing.start, thing.stop, thing.step) if type(thing) is slice else thing
            return type(thing), *map(self.key, parts)
        if isinstance(thing, int):
            return type(thing), int(thing)
        if id(thing) in self.number:
            return "again", self.number[id(thing)]
        self.number[id(thing)] = len(self.number)
        if isinstance(thing, torch.nn.Module):
            return self._module(thing)
        if isinstance(thing, torch.Tensor):
            return self._tensor(thing)
        if type(thing) is list:
            return list, *map(self.key, thing)
        if type(thing) in (set, frozenset):
            return type(thing), frozenset(map(self.key, thing))
        if type(thing) in (dict, OrderedDict):
            return type(thing), *((self.key(name), self.key(value)) for name, value in thing.items())
        if type(thing) is partial:
            return partial, self.key(thing.func), self.key(thing.args), self.key(thing.keywords)
        if dataclasses.is_dataclass(thing):
            return type(thing), *(self.key(getattr(thing, field.name)) for field in dataclasses.fields(thing))
        return Alone(thing)

    def _module(self, module: Any) -> Hashable:
        """A module by its attributes and hooks; hooks of its state do not change what it computes."""
        own = vars(module)
        called = [(name, own[name].items()) for name in HOOKS if own.get(name)]
        hooks = tuple((name, *(self._hook(own, *one) for one in held)) for name, held in called)
        return type(module), hooks, *((name, self.key(value)) for name, value in own.items() if "_hooks" not in name)

    def _hook(self, own: dict[str, Any], number: int, hook: Any) -> Hashable:
        """A hook and how it is called, which a module keeps in further attributes."""
        told = [name for name, held in own.items() if "_hooks_" in name and held and number in held]
        return self.key(hook), *told

    def _tensor(self, tensor: Any) -> Hashable:
        torch = self.torch
        kind = type(tensor), tensor.dtype, tuple(tensor.shape), tensor.device, tensor.requires_grad
        if isinstance(tensor, torch.nn.Parameter):
            return kind
        if type(tensor) not in (torch.Tensor, torch.nn.Buffer):
            return Alone(object())  # nothing is equal to it, and who has the key does not keep it
        plain = tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_quantized
        if not plain or tensor.numel() * tensor.element_size() > MOST_BYTES:
            return Alone(tensor)
        content = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
        return kind, bytes(content.numpy())
