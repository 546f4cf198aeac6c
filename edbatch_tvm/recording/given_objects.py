"""Objects of the user's classes as arguments of cells: constants, told from others by what is in them.

A cell reads what an object holds when it is called. So the key of a call has the contents, and the cell's code gets a
copy that nobody changes later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from enum import Enum
from functools import lru_cache, partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any, Generic

import numpy as np
import torch

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.held_objects import is_of_user, slots_of_class

MOST_PARTS = 1000
"""Numbers, names and other things in an object that may be an argument of a cell."""

_MOST_NUMBERS = 1024
"""Elements of a tensor in one."""

_OF_PYTHON = frozenset({"types", "argparse"})
"""Modules of Python whose objects have what the user gives them."""

_MADE_IN_PYTHON = 1 << 9
"""Flag of classes that a ``class`` statement makes."""

_VALUES = int, float, complex, str, bytes, frozenset
_CODE = type, FunctionType, BuiltinFunctionType, MethodType, ModuleType, partial, torch._ops.OpOverload
_PLAIN = (*_VALUES, type(None), type(...), range, slice, torch.dtype, torch.device, Enum)
_CONTAINERS = list, tuple, dict, set, deque
_OTHER = *_CODE, *_PLAIN, *_CONTAINERS, torch.Tensor, np.ndarray, torch.nn.Module, BaseException


def is_object(value: Any) -> bool:
    """Whether a value is an object of the user's with contents of its own."""
    kind: Any = type(value)
    return _is_object(kind)


@lru_cache(maxsize=1024)
def _is_object(kind: Any) -> bool:
    return not issubclass(kind, _OTHER) and (kind.__module__ in _OF_PYTHON or is_of_user(kind))


@lru_cache(maxsize=1024)
def _is_of_python(kind: Any) -> bool:
    """Whether objects of a class have nothing but attributes: nothing that a base in compiled code keeps."""
    made_by_code = (base for base in kind.__mro__ if not base.__flags__ & _MADE_IN_PYTHON)
    return all(base in (object, SimpleNamespace, Generic) for base in made_by_code)


class GivenObject:
    """An object as it is now; equal to others of its class with equal contents."""

    __slots__ = ("_content", "_kind", "_value")

    def __init__(self, value: Any) -> None:
        self._value = value
        self._kind = type(value)
        self._content = content_of_object(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GivenObject) and self._kind is other._kind and self._content == other._content

    def __hash__(self) -> int:
        return hash((self._kind, self._content))

    def copy(self) -> Any:
        """A copy of the object: as long as nobody has changed it since."""
        return copy_of_object(self._value)


def content_of_object(value: Any) -> Hashable:
    """The contents of an object.

    Raises
    ------
    CellError
        If they cannot be compared, or are many.
    """
    left = [MOST_PARTS]

    def content(part: Any, above: tuple[int, ...]) -> Hashable:
        left[0] -= 1
        kind: Any = type(part)
        if left[0] < 0 or id(part) in above:
            raise _refused(value, f"more than {MOST_PARTS} parts" if left[0] < 0 else "itself")
        if isinstance(part, float | complex):
            return kind, repr(part)  # 0.0 and -0.0 are equal and not the same, NaN is not equal to itself
        if isinstance(part, _PLAIN) and not (isinstance(part, _VALUES) and getattr(part, "__dict__", None)):
            return kind, part
        if isinstance(part, _CODE) or (
            callable(part) and not is_object(part) and not isinstance(part, torch.nn.Module)
        ):
            return kind, _Same(part)
        inside = (*above, id(part))
        if kind in (dict, set):
            items = part.items() if kind is dict else part
            parts = [content(item, inside) for item in items]
            return kind, frozenset(parts) if kind is set else tuple(parts)
        if isinstance(part, list | tuple | deque) and not getattr(part, "__dict__", None):
            return kind, tuple([content(item, inside) for item in part])
        if type(part) is torch.Tensor and not part.requires_grad and part.layout is torch.strided and part.is_cpu:
            if part.numel() <= _MOST_NUMBERS:
                return kind, part.dtype, part.shape, repr(part.tolist())
        elif kind is np.ndarray and not part.dtype.hasobject and part.size <= _MOST_NUMBERS:
            return kind, part.dtype.str, part.shape, part.tobytes()
        elif is_object(part) and _is_of_python(kind):
            return kind, tuple([(name, content(item, inside)) for name, item in _attributes(part)])
        raise _refused(value, f"a {kind.__name__}")

    return content(value, ())


def copy_of_object(value: Any) -> Any:
    """A copy of an object whose contents are known, with copies of what may be changed."""
    kind = type(value)
    if kind is dict:
        return {copy_of_object(name): copy_of_object(item) for name, item in value.items()}
    if kind in (set, list, deque, tuple):
        return kind(map(copy_of_object, value))
    if isinstance(value, tuple):
        return tuple.__new__(kind, map(copy_of_object, value))
    if kind is torch.Tensor:
        return value.clone()
    if kind is np.ndarray:
        return value.copy()
    if not is_object(value):
        return value
    made = SimpleNamespace.__new__(kind) if issubclass(kind, SimpleNamespace) else object.__new__(kind)
    for name, item in _attributes(value):
        object.__setattr__(made, name, copy_of_object(item))
    return made


class _Same:
    """Something that is equal to itself alone."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Same):
            return NotImplemented
        return self._value is other._value or (type(self._value) is MethodType and self._value == other._value)

    def __hash__(self) -> int:
        return hash(id(getattr(self._value, "__func__", self._value)))


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """The attributes of an object, in its dictionary and in slots."""
    yield from getattr(value, "__dict__", {}).items()
    kind: Any = type(value)
    for name in slots_of_class(kind):
        if hasattr(value, name):
            yield name, getattr(value, name)


def _refused(value: Any, what: str) -> CellError:
    return CellError(
        f"an argument of a cell is a {type(value).__name__} that holds {what}",
        "tensors, integers, and tuples, lists and dicts of them; or objects of numbers, names and functions",
    )


def unchanged(name: str, values: list[Any]) -> Callable[[], None]:
    """What checks later that code has changed none of the objects among `values`.

    Raises
    ------
    CellError
        Later, naming the class.
    """
    before = [(one, content_of_object(one)) for one in values if is_object(one)]

    def check() -> None:
        for one, content in before:
            if content_of_object(one) != content:
                raise CellError(f"the code of cell {name!r} changes a {type(one).__name__}", "code that makes new ones")

    return check
