"""Objects that elements share, as they were: in the model, in the elements, in globals and in closures.

Watched are lists, dicts, sets, arrays, tensors, generators of random numbers, iterators, and objects of the user's
classes, to any depth.
"""

from __future__ import annotations

import random
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from operator import is_, length_hint
from types import BuiltinFunctionType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from edbatch_tvm.recording.held_objects import is_of_user

_MOST = 100_000
"""Objects that are watched; those beyond are not."""

_OF_STATE = frozenset({"types", "collections", "argparse"})
"""Modules of Python whose objects have what the user gives them."""

_PLAIN = frozenset({int, float, bool, complex, str, bytes, type(None), range, slice, torch.Size, torch.dtype})
_CODE = type, FunctionType, BuiltinFunctionType, MethodType, ModuleType, partial, torch.nn.Module
GENERATORS = random.Random, torch.Generator, np.random.Generator, np.random.RandomState


def drawn_from(generator: Any) -> Any:
    """The state of a generator of random numbers."""
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, torch.Generator):
        return generator.get_state().numpy().tobytes()
    if isinstance(generator, np.random.RandomState):
        state: Any = generator.get_state()
        return state[1].tobytes(), *state[2:]
    return repr(generator.bit_generator.state)


class Watched:
    """An object as it was.

    Parameters
    ----------
    name, kind : str
        What it is, or what it is in, for errors.
    value : object
    """

    __slots__ = ("_parts", "_raw", "_value", "kind", "name")

    def __init__(self, name: str, kind: str, value: Any) -> None:
        self.name = name
        self.kind = kind
        self._value = value
        self._parts, self._raw = _content(value)

    @property
    def parts(self) -> list[Any]:
        """The objects in it."""
        return self._parts

    @property
    def is_changed(self) -> bool:
        """Whether there are other objects in it."""
        parts, raw = _content(self._value)
        return len(parts) != len(self._parts) or not all(map(is_, parts, self._parts)) or bool(raw != self._raw)


def _content(value: Any) -> tuple[list[Any], Any]:
    """The objects in an object, and what is compared by value."""
    return _parts(value), _raw(value)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, list | tuple | deque):
        return list(value)
    if isinstance(value, np.ndarray):
        return [*value.flat] if value.dtype.hasobject else []
    if isinstance(value, (torch.Tensor, set, frozenset, bytearray, array, *GENERATORS)):
        return []
    if isinstance(value, GeneratorType):
        return list(value.gi_frame.f_locals.values()) if value.gi_frame is not None else []
    own = getattr(value, "__dict__", None)
    parts = [*own, *own.values()] if isinstance(own, dict) else []
    for kind in type(value).__mro__:
        names = vars(kind).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            parts += [name, getattr(value, name, None)] if name not in ("__dict__", "__weakref__") else []
    return parts


def _raw(value: Any) -> Any:
    if isinstance(value, dict | list | tuple | deque):
        return None
    if isinstance(value, torch.Tensor):
        return 0 if value.is_inference() else value._version
    if isinstance(value, np.ndarray):
        return None if value.dtype.hasobject else value.tobytes()
    if isinstance(value, set | frozenset):
        return set(value)
    if isinstance(value, bytearray | array):
        return bytes(value)
    if isinstance(value, GENERATORS):
        return drawn_from(value)
    if isinstance(value, GeneratorType):
        return value.gi_frame.f_lasti if value.gi_frame is not None else None
    return (repr(value), length_hint(value, -1)) if isinstance(value, Iterator) else None


def is_watched(value: Any) -> bool:
    """Whether an object may change, or hold some that do."""
    kind = type(value)
    if kind in _PLAIN or isinstance(value, _CODE):
        return False
    if kind in (list, dict, tuple) or isinstance(
        value,
        (dict, list, tuple, set, deque, torch.Tensor, np.ndarray, bytearray, array, *GENERATORS, Iterator),
    ):
        return True
    return kind.__module__ in _OF_STATE or is_of_user(kind)


def is_state(value: Any) -> bool:
    """Whether the value of a variable is watched: what packages keep in variables are caches."""
    kinds = (dict, list, tuple, set, bytearray, np.ndarray, torch.Tensor, *GENERATORS)
    return is_of_user(type(value)) or isinstance(value, kinds)


def watched(roots: Iterable[tuple[str, Any]]) -> list[Watched]:
    """What is watched of named objects, and of those in them."""
    found: dict[int, Watched] = {}
    for name, root in roots:
        waiting = [root] if is_watched(root) else []
        while waiting and len(found) < _MOST:
            value = waiting.pop()
            if id(value) not in found:
                one = found[id(value)] = Watched(name, type(root).__name__, value)
                waiting += filter(is_watched, one.parts)
    return list(found.values())


def in_several(elements: Iterable[Any]) -> list[Any]:
    """The objects that several elements hold."""
    first: dict[int, int] = {}
    several: dict[int, Any] = {}
    for number, element in enumerate(elements):
        waiting = [element]
        while waiting and len(first) < _MOST:
            value = waiting.pop()
            kind = type(value)
            if kind in _PLAIN or not is_watched(value):
                continue
            known = first.get(id(value))
            if known is not None:
                if known != number:
                    several[id(value)] = value  # and so is what it holds
                continue
            first[id(value)] = number
            if kind is list or kind is tuple:
                waiting += value
            elif kind is not torch.Tensor:
                waiting += _parts(value)
    return list(several.values())
