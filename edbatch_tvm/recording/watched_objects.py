"""Objects that elements share, as they were: in the model, in the elements, in globals and in closures.

Watched are lists, dicts, sets, arrays, tensors, generators of random numbers, iterators, and objects of the user's
classes, to any depth.
"""

from __future__ import annotations

import ctypes
import random
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import lru_cache, partial
from operator import is_, length_hint
from types import BuiltinFunctionType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from edbatch_tvm.recording.held_objects import is_of_user, slots_of_class
from edbatch_tvm.recording.lazy import LazyTensor
from edbatch_tvm.recording.random_state import GENERATORS

MOST = 100_000
"""Objects that are watched; who shares more is not batched while elements wait."""

_LARGE = 1 << 15
"""Bytes of memory of which a digest is kept, no copy."""

native: Any = None
"""``native_core``, while it is in use."""

_OF_STATE = frozenset({"types", "collections", "argparse"})
"""Modules of Python whose objects have what the user gives them."""

_PLAIN = frozenset({int, float, bool, complex, str, bytes, type(None), range, slice, torch.Size, torch.dtype})
_CODE = type, FunctionType, BuiltinFunctionType, MethodType, ModuleType, partial, torch.nn.Module
_CONTAINERS = dict, list, tuple, set, deque, torch.Tensor, np.ndarray, bytearray, array, ContextVar


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
    kind: Any = type(value)
    parts, raw = _readers(kind)
    return parts(value), raw(value)


@lru_cache(maxsize=1024)
def _readers(kind: Any) -> tuple[Callable[[Any], list[Any]], Callable[[Any], Any]]:
    """What gives the objects in an object of a class, and what gives what is compared by value."""
    if issubclass(kind, dict):
        return _items, _nothing
    if issubclass(kind, list | tuple | deque):
        return list, _nothing
    if issubclass(kind, torch.Tensor):
        return _no_parts, _numbers
    if issubclass(kind, np.ndarray):
        return _objects_of_array, _numbers_of_array
    if issubclass(kind, set | frozenset):
        return _no_parts, set
    if issubclass(kind, bytearray | array):
        return _no_parts, _bytes
    if issubclass(kind, GENERATORS):
        return _no_parts, drawn_from
    if issubclass(kind, GeneratorType):
        return _locals, _place
    if kind is ContextVar:
        return _of_context, _nothing
    return partial(_attributes, slots_of_class(kind)), _progress if issubclass(kind, Iterator) else _nothing


def _no_parts(_value: Any) -> list[Any]:
    return []


def _nothing(_value: Any) -> None:
    return None


def _items(value: dict[Any, Any]) -> list[Any]:
    return [*value, *value.values()]


def _attributes(slots: Iterable[str], value: Any) -> list[Any]:
    own = getattr(value, "__dict__", None)
    parts = [*own, *own.values()] if isinstance(own, dict) else []
    for name in slots:
        parts += [name, getattr(value, name, None)]
    return parts


def _of_context(value: ContextVar[Any]) -> list[Any]:
    return [value.get(None)]


def _numbers(value: torch.Tensor) -> tuple[int, Any]:
    # Who writes through ``data`` or NumPy changes no version.
    return 0 if value.is_inference() else value._version, numbers_of(value)


def numbers_of(tensor: torch.Tensor) -> Any:
    """The numbers of a tensor in host memory, or a digest of them; None if it is another.

    What is recorded has no memory yet.
    """
    if type(tensor) is LazyTensor or tensor.layout is not torch.strided or not tensor.is_cpu or tensor.numel() == 0:
        return None
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        plain = torch.Tensor.detach(tensor).resolve_conj().resolve_neg().contiguous()
        # Not by numpy(), after which memory cannot be resized, and what is recorded cannot be written into it.
        memory = (ctypes.c_char * (plain.numel() * plain.itemsize)).from_address(plain.data_ptr())
        return memory.raw if len(memory) < _LARGE or native is None else native.digest(memory)


def _objects_of_array(value: np.ndarray) -> list[Any]:
    return [*value.flat] if value.dtype.hasobject else []


def _numbers_of_array(value: np.ndarray) -> Any:
    return None if value.dtype.hasobject or _is_constant(value) else _in_memory(value)


def _bytes(value: Any) -> Any:
    return _in_memory(np.frombuffer(value, np.uint8))


def _locals(value: GeneratorType[Any, Any, Any]) -> list[Any]:
    return list(value.gi_frame.f_locals.values()) if value.gi_frame is not None else []


def _place(value: GeneratorType[Any, Any, Any]) -> int | None:
    return value.gi_frame.f_lasti if value.gi_frame is not None else None


def _progress(value: Any) -> tuple[str, int]:
    return repr(value), length_hint(value, -1)


def _is_constant(value: np.ndarray) -> bool:
    """Whether nobody can write into an array: it is memory that can only be read, of a file or of bytes."""
    while not value.flags.writeable:
        if not isinstance(value.base, np.ndarray):
            return value.base is not None
        value = value.base
    return False


def _in_memory(value: np.ndarray) -> Any:
    """The numbers of an array, or a digest of them."""
    if value.nbytes < _LARGE or native is None:
        return value.tobytes()
    return native.digest(np.asarray(value).ravel(order="K").view(np.uint8))


def is_watched(value: Any) -> bool:
    """Whether an object may change, or hold some that do."""
    kind: Any = type(value)
    return _is_watched(kind)


@lru_cache(maxsize=1024)
def _is_watched(kind: Any) -> bool:
    if kind in _PLAIN or issubclass(kind, _CODE):
        return False
    if issubclass(kind, (*_CONTAINERS, *GENERATORS, Iterator)):
        return True
    return kind.__module__ in _OF_STATE or issubclass(kind, threading.local) or is_of_user(kind)


def is_state(value: Any) -> bool:
    """Whether the value of a variable is watched: what packages keep in variables are caches."""
    kinds = (dict, list, tuple, set, bytearray, np.ndarray, torch.Tensor, threading.local, ContextVar, *GENERATORS)
    return type(value).__module__ in _OF_STATE or is_of_user(type(value)) or isinstance(value, kinds)


class WatchedObjects:
    """Named objects, and those in them, as they were.

    Parameters
    ----------
    roots : iterable of (str, object)

    Attributes
    ----------
    too_many : str
        The name of the object in which there are more than can be watched; "" if there is none.
    """

    def __init__(self, roots: Iterable[tuple[str, Any]] = ()) -> None:
        self.too_many = ""
        self._found: dict[int, Watched] = {}
        for name, root in roots:
            waiting = [root] if is_watched(root) else []
            while waiting:
                value = waiting.pop()
                if id(value) in self._found:
                    continue
                if len(self._found) == MOST:
                    self.too_many = name
                    return
                one = self._found[id(value)] = Watched(name, type(root).__name__, value)
                waiting += filter(is_watched, one.parts)

    def changed(self) -> Watched | None:
        """One that is not what it was; None if there is none."""
        return next((one for one in self._found.values() if one.is_changed), None)


def in_several(elements: Iterable[Any]) -> list[Any]:
    """The objects that several elements hold."""
    first: dict[int, int] = {}
    several: dict[int, Any] = {}
    for number, element in enumerate(elements):
        waiting = [element]
        while waiting:  # all: they cost little beside what elements do
            value = waiting.pop()
            kind: Any = type(value)
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
                waiting += _readers(kind)[0](value)
    return list(several.values())
