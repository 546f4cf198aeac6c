"""What a model's ``forward`` may read besides its arguments: kept, to be compared with what it is later."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from edbatch_tvm.recording.library import same_numbers
from edbatch_tvm.recording.module_attributes import OWN

_DEEPEST = 6
"""Objects in objects that are looked into."""

_PLAIN = frozenset({int, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size, complex})
_HOOKS = tuple(name for name in vars(torch.nn.Module()) if "hooks" in name and not name.endswith("with_kwargs"))


class SeenState:
    """The attributes, buffers, mode and parameters of a model at one time.

    Parameters
    ----------
    model : Module
    followed : set of int
        Ids of parameters whose numbers do not count.
    """

    def __init__(self, model: torch.nn.Module, followed: set[int]) -> None:
        self._followed = followed
        self._kept = [(where, _frozen(value, 0)) for where, value in self._parts(model)]

    def holds(self, model: torch.nn.Module) -> bool:
        """Whether all of it is as it was."""
        kept = iter(self._kept)
        for where, value in self._parts(model):
            known = next(kept, None)
            if known is None or known[0] != where or not known[1].is_still(value):
                return False
        return next(kept, None) is None

    def _parts(self, model: torch.nn.Module) -> Iterator[tuple[Any, Any]]:
        """What there is, by where it is."""
        for path, module in model.named_modules(remove_duplicate=False):
            own = vars(module)
            yield (path, id(module), type(module), module.training), None
            for name in _HOOKS:
                if own.get(name):
                    yield (path, name), list(own[name].values())
            for name, buffer in own["_buffers"].items():
                yield (path, name), buffer
            for name, parameter in own["_parameters"].items():
                yield (path, name, id(parameter)), None if id(parameter) in self._followed else parameter
            for name, value in own.items():
                if name not in OWN:
                    yield (path, name), value
            for kind in type(module).__mro__:
                if kind is torch.nn.Module:
                    break
                if kind.__module__.startswith("torch."):
                    continue
                for name, value in vars(kind).items():
                    if not name.startswith("__") and not callable(value) and not hasattr(value, "__get__"):
                        yield (path, kind, name), value


class _Kept:
    """A value as it was."""

    def __init__(self, value: Any, content: Any) -> None:
        self.value = value
        self.content = content

    def is_still(self, value: Any) -> bool:
        """Whether a value is what this one was."""
        return value is self.value


class _Constant(_Kept):
    def is_still(self, value: Any) -> bool:
        return type(value) is type(self.value) and value == self.value


class _Float(_Kept):
    def is_still(self, value: Any) -> bool:
        return type(value) is float and repr(value) == self.content


class _Tensor(_Kept):
    def is_still(self, value: Any) -> bool:
        return value is self.value and same_numbers(value, self.content)


class _Array(_Kept):
    def is_still(self, value: Any) -> bool:
        return value is self.value and (value.shape, value.dtype, value.tobytes()) == self.content


class _Parts(_Kept):
    """A container or an object: the same one, with the same parts in it; a tuple may be an equal one."""

    def is_still(self, value: Any) -> bool:
        if type(value) is not type(self.value) or (type(value) is not tuple and value is not self.value):
            return False
        parts = _parts_of(value)
        return len(parts) == len(self.content) and all(
            kept.is_still(part) for kept, part in zip(self.content, parts, strict=True)
        )


def _frozen(value: Any, depth: int) -> _Kept:
    kind = type(value)
    if kind in _PLAIN:
        return _Constant(value, None)
    if kind is float:
        return _Float(value, repr(value))
    if isinstance(value, torch.Tensor):
        return _Tensor(value, value.detach().clone())
    if isinstance(value, np.ndarray):
        return _Array(value, (value.shape, value.dtype, value.tobytes()))
    if depth < _DEEPEST and (_is_container(value) or _is_object(value)):
        return _Parts(value, [_frozen(part, depth + 1) for part in _parts_of(value)])
    return _Kept(value, None)


def _is_container(value: Any) -> bool:
    return isinstance(value, list | tuple | dict | set | frozenset | deque)


def _is_object(value: Any) -> bool:
    if isinstance(value, torch.nn.Module | type) or callable(value):
        return False
    return isinstance(getattr(value, "__dict__", None), dict)


def _parts_of(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if _is_container(value):
        return list(value)
    return [*vars(value).keys(), *vars(value).values()]
