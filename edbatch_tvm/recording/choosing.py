"""Which submodules and methods are cells, where the user lists none: found in what the first elements call.

The first elements run by the model's own code while a profiler notes every call of a submodule or method, and a mode of
PyTorch every operation. A cell is the largest callable all of whose calls

* take tensors and integers, or tuples, lists and dicts of tensors, and return tensors;
* are of few kinds: shapes, but for the number of rows, and constants;
* run the same operations in every call of one kind, few times each, so that there is no loop or branch on data;
* read no value, draw no random number and change no argument and no list of their module.

The recursion itself is none: it takes the element's data, and calls itself.
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, FunctionType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from edbatch_tvm.recording.module_attributes import CONTAINERS
from edbatch_tvm.recording.rebinding import OWN
from edbatch_tvm.recording.uncompiled import path_as_written

_MOST_KINDS = 4
"""Kinds of arguments of one cell."""

_MOST_REPEATS = 3
"""Calls of one submodule or method within a call: more are taken for a loop."""

_MOST_OPERATIONS = 150

_READING = frozenset(
    (
        *("item", "tolist", "numpy", "nonzero", "argwhere", "unique", "masked_select", "bincount"),
        *("allclose", "equal", "is_nonzero", "__array__", "__contains__", "__iter__"),
        *("__bool__", "__int__", "__float__", "__index__", "__complex__"),
    )
)
"""Operations by which code reads values."""

Name = tuple[int, str]
"""The id of a module, and a method of it."""


class _Call:
    """A call of a submodule or method while the first elements run."""

    __slots__ = ("before", "begin", "fits", "kind", "name", "operations", "parent", "tensors")

    def __init__(self, name: Name, parent: int, begin: int) -> None:
        self.name = name
        self.parent = parent
        self.begin = begin
        self.fits = True
        self.kind: Any = None
        self.operations: tuple[str, ...] = ()
        self.tensors: list[tuple[torch.Tensor, int]] = []
        self.before: Any = None


class _Operations(TorchFunctionMode):
    """Notes the names of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, function: Any, _types: Any, arguments: Any = (), named: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        if name != "__get__":
            self.names.append(name)
        return function(*arguments, **(named or {}))


class Observer:
    """Notes what a model calls.

    Parameters
    ----------
    model : torch.nn.Module
    entry : str
        The method that elements run, which is no cell.
    """

    def __init__(self, model: torch.nn.Module, entry: str) -> None:
        self._paths = {id(module): path_as_written(path) for path, module in reversed(list(model.named_modules()))}
        self._modules = {id(module): module for module in model.modules()}
        self._names = _methods_of(model)
        self._root = (id(model), entry)
        self._operations = _Operations()
        self._calls: list[_Call] = []
        self._open: list[tuple[FrameType, int]] = []
        self._unfit: set[Name] = {self._root, (id(model), "forward")}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A context in which calls are noted."""
        before = sys.getprofile()
        with self._operations:
            sys.setprofile(self._profile)
            try:
                yield
            finally:
                sys.setprofile(before)
                self._open.clear()

    # Notes ------------------------------------------------------------------------------------------------------

    def _profile(self, frame: FrameType, event: str, result: Any) -> None:
        if event == "call":
            name = self._names.get(frame.f_code)
            if name is not None:
                self._begin(frame, name)
        elif event == "return" and self._open and self._open[-1][0] is frame:
            self._end(self._calls[self._open.pop()[1]], result)

    def _begin(self, frame: FrameType, method: str) -> None:
        code = frame.f_code
        names = code.co_varnames[: code.co_argcount + bool(code.co_flags & inspect.CO_VARARGS)]
        owner = frame.f_locals.get(names[0]) if names else None
        if id(owner) not in self._modules or _code_of(type(owner), method) is not code:
            return
        name = id(owner), method
        parent = self._open[-1][1] if self._open else -1
        if any(self._calls[number].name == name for _, number in self._open):
            self._unfit.add(name)
        self._open.append((frame, len(self._calls)))
        call = _Call(name, parent, len(self._operations.names))
        self._calls.append(call)
        if name in self._unfit:
            return
        arguments = [frame.f_locals[one] for one in names[1:]]
        with torch._C.DisableTorchFunction():
            given = [one for one in pytree.tree_leaves(arguments) if isinstance(one, torch.Tensor | int)]
            tensors = [one for one in given if isinstance(one, torch.Tensor)]
            call.kind = tuple(map(_kind_of, arguments))
            call.fits = not code.co_kwonlyargcount and not code.co_flags & inspect.CO_VARKEYWORDS
            call.fits = call.fits and bool(given) and not _has(call.kind, _OTHER)
            call.tensors = [(one, one._version) for one in tensors if not one.is_inference()]
            call.before = torch.get_rng_state(), _containers_of(owner)

    def _end(self, call: _Call, result: Any) -> None:
        if call.name in self._unfit:
            return
        with torch._C.DisableTorchFunction():
            call.operations = tuple(self._operations.names[call.begin :])
            leaves = pytree.tree_leaves(result)
            fits = bool(leaves) and all(isinstance(one, torch.Tensor) for one in leaves)
            fits = fits and all(one._version == version for one, version in call.tensors)
            state, containers = call.before
            fits = fits and torch.equal(state, torch.get_rng_state())
            fits = fits and containers == _containers_of(self._modules[call.name[0]])
            call.fits = call.fits and fits and not _READING.intersection(call.operations)
            call.fits = call.fits and 0 < len(call.operations) <= _MOST_OPERATIONS
            call.tensors, call.before = [], None

    # The choice -------------------------------------------------------------------------------------------------

    def cells(self) -> list[str]:
        """The names of the cells, in the order in which they were first called."""
        fit = self._fit()
        chosen: dict[Name, str] = {}
        covered: list[bool] = []
        for call in self._calls:
            inside = call.parent >= 0 and (covered[call.parent] or self._calls[call.parent].name in chosen)
            covered.append(inside)
            if not inside and call.name in fit and call.name not in chosen:
                chosen[call.name] = self._path(call.name)
        return list(chosen.values())

    def _path(self, name: Name) -> str:
        module, method = name
        path = self._paths[module]
        return path if method == "forward" else f"{path}.{method}" if path else method

    def _fit(self) -> set[Name]:
        by_name: dict[Name, list[_Call]] = {}
        below: dict[int, Counter[Name]] = {}
        for number, call in enumerate(self._calls):
            by_name.setdefault(call.name, []).append(call)
            below[number] = Counter()
            parent = call.parent
            while parent >= 0:
                below[parent][call.name] += 1
                parent = self._calls[parent].parent
        loops = {
            call.name
            for number, call in enumerate(self._calls)
            if max(below[number].values(), default=0) > _MOST_REPEATS
        }
        return {
            name
            for name, calls in by_name.items()
            if name not in self._unfit and name not in loops and self._is_cell(name, calls)
        }

    def _is_cell(self, name: Name, calls: list[_Call]) -> bool:
        if not all(call.fits for call in calls):
            return False
        owner = self._modules[name[0]]
        if name[1] == "forward" and max(len(call.operations) for call in calls) == 1 and not _has_tensors(owner):
            return False  # as good as the operation by itself
        kinds: dict[Any, set[tuple[str, ...]]] = {}
        for call in calls:
            kinds.setdefault(call.kind, set()).add(call.operations)
        plain = type(owner).__module__.startswith("torch.")
        return all(len(same) == 1 for same in kinds.values()) and (plain or len(kinds) <= _MOST_KINDS)


def _has_tensors(module: torch.nn.Module) -> bool:
    return next(module.parameters(), None) is not None or next(module.buffers(), None) is not None


def _methods_of(model: torch.nn.Module) -> dict[CodeType, str]:
    """The code of what may be called of the model's modules: methods, and of PyTorch's own modules ``forward``."""
    found: dict[CodeType, str] = {}
    for kind in {kind for module in model.modules() for kind in type(module).__mro__}:
        plain = kind.__module__.startswith("torch.")
        for name, value in vars(kind).items():
            method = _unwrapped(value)
            if method is not None and (name == "forward" or not (plain or name.startswith("__"))):
                found[method.__code__] = name
    return found


def _unwrapped(value: Any) -> FunctionType | None:
    function = inspect.unwrap(value) if isinstance(value, FunctionType) else None
    return function if isinstance(function, FunctionType) else None


def _code_of(kind: type, name: str) -> CodeType | None:
    function = _unwrapped(getattr(kind, name, None))
    return None if function is None else function.__code__


# Kinds of arguments ---------------------------------------------------------------------------------------------

_OTHER = object()
"""Anything that is no argument of cells: data of the element."""


def _kind_of(argument: Any) -> Any:
    """What calls of one kind have in common of an argument."""
    kind = type(argument)
    if isinstance(argument, torch.Tensor):
        shape = tuple(argument.shape)
        return argument.dtype, len(shape), shape[1:] if len(shape) > 1 else shape
    if kind is int:
        return kind
    if kind in (bool, float, str, type(None), torch.dtype, torch.device):
        return kind, repr(argument)
    if kind in (tuple, list):
        parts = tuple(map(_kind_of, argument))
        if any(part is int for part in parts):
            return _OTHER  # data of the element
        return (kind, parts[0]) if kind is list and len(set(parts)) == 1 else (kind, *parts)
    if kind is dict:
        return kind, tuple((name, _kind_of(item)) for name, item in argument.items())
    return _OTHER


def _has(kind: Any, part: Any) -> bool:
    return kind is part or (isinstance(kind, tuple) and any(_has(one, part) for one in kind))


def _containers_of(module: Any) -> list[tuple[str, int]]:
    """The lists, dicts and sets of a module, and how many items are in each."""
    return [(name, len(one)) for name, one in vars(module).items() if name not in OWN and isinstance(one, CONTAINERS)]


def chosen_line(model: torch.nn.Module, cells: list[str], elements: int) -> str:
    """The line that says what was chosen."""
    seen = f"{elements} element{'s' if elements != 1 else ''}"
    if not cells:
        return (
            f"autobatch: no cells found in what {seen} of {type(model).__name__} called; operations are batched alone"
        )
    return f"autobatch: cells={cells!r}, chosen by what {seen} of {type(model).__name__} called"
