"""Objects outside of a model that code finds in globals, in closures and in hooks, as they were before it ran.

Code is tried before it is a cell. What it changes in a list, a dict or another object would otherwise stay changed, and
a cell, whose code never runs again, would not change it any more.
"""

from __future__ import annotations

import sys
import sysconfig
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import lru_cache, partial
from types import CellType, CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

import relay_ext
import schedules
from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.random_state import GENERATORS, put_back, same_state, state_of

_CONTAINERS = list, dict, set, deque, bytearray
_MOST_SCANNED = 1000
"""Items of a container up to which those are looked at as well."""

_LEVELS = 3
"""How deep objects are held: acts["x"].append changes a list in a dict."""

_STANDARD = sysconfig.get_paths()["stdlib"]
_OWN = sys.modules[__name__.partition(".")[0]]
_PACKAGES = tuple(f"{next(iter(one.__path__))}/" for one in (torch, np, _OWN, relay_ext, schedules))

_EMPTY = CellType()
"""A variable of a closure that is not set yet."""


_UNSET = object()
"""What a context variable without a value is said to have."""


STANDS_FOR = "_edbatch_stands_for"
"""Name of the attribute by which a function that is in the place of another knows that one."""


def own_function(value: Any) -> Any:
    """The user's function, also while another is in its place; anything else itself."""
    function = value.__func__ if isinstance(value, staticmethod) else value
    return getattr(function, STANDS_FOR, function)


class ChangesOthers(CellError):
    """Code that changes an object which is no part of the model."""


class Held(NamedTuple):
    """An object, and a shallow copy of what is in it; of a tensor, how often it was written into."""

    name: str
    value: Any
    content: Any

    @classmethod
    def of(cls, name: str, value: Any) -> Held:
        """The object as it is."""
        return cls(name, value, _content(value))

    @property
    def is_changed(self) -> bool:
        """Whether something else is in it."""
        now, before = _content(self.value), self.content
        if isinstance(self.value, GENERATORS):
            return not same_state(now, before)
        if isinstance(before, int):
            return bool(now != before)
        if isinstance(before, np.ndarray):
            return not np.array_equal(now, before, equal_nan=before.dtype.kind in "fc")
        if isinstance(before, dict):
            return now.keys() != before.keys() or any(now[key] is not one for key, one in before.items())
        if isinstance(before, set | bytearray):
            return bool(now != before)
        return len(now) != len(before) or any(one is not other for one, other in zip(now, before, strict=True))

    def put_back(self) -> None:
        """Let it have what it had."""
        value, content = self.value, self.content
        if isinstance(value, GENERATORS):
            put_back(value, content)
        elif isinstance(value, np.ndarray):
            value[...] = content
        elif isinstance(value, list | bytearray):
            value[:] = content
        elif isinstance(value, ContextVar):
            value.set(content[0])
        elif isinstance(value, deque):
            value.clear()
            value.extend(content)
        else:
            into: Any = value if isinstance(value, dict | set) else vars(value)
            into.clear()
            into.update(content)


def _content(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return 0 if value.is_inference() else value._version
    if isinstance(value, GENERATORS):
        return state_of(value)
    if isinstance(value, np.ndarray):
        return value.copy()
    for kind in (list, set, bytearray):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, deque):
        return list(value)
    if isinstance(value, ContextVar):
        return [value.get(_UNSET)]
    return dict(value if isinstance(value, dict) else vars(value))


def _is_held(value: Any) -> bool:
    """Whether code may change something in a value that a copy of it shows."""
    if isinstance(value, (*_CONTAINERS, *GENERATORS, np.ndarray, ContextVar)):
        return True
    if isinstance(value, type | ModuleType | FunctionType | MethodType | torch.nn.Module | torch.Tensor):
        return False
    if type(getattr(value, "__dict__", None)) is not dict:
        return False
    return is_of_user(type(value)) or isinstance(value, threading.local)  # all elements run in one thread


def _file_of(kind: type) -> str:
    if kind.__module__ == "__main__":  # which has no file in a notebook
        return kind.__module__
    return str(getattr(sys.modules.get(kind.__module__), "__file__", None) or "")


def is_of_user(kind: type) -> bool:
    """Whether a class is the user's."""
    return _is_users(_file_of(kind))


def _is_users(file: str) -> bool:
    """Whether a file is the user's; what installed packages keep in globals is a cache of theirs."""
    return bool(file) and "-packages" not in file and not file.startswith(("<frozen", _STANDARD, *_PACKAGES))


class Variable(NamedTuple):
    """A variable of a module or a closure, and what it was."""

    name: str
    read: Callable[[], Any]
    value: Any

    @property
    def kind(self) -> str:
        """What its value was, for errors."""
        return type(self.value).__name__

    @property
    def is_changed(self) -> bool:
        """Whether it is another object now, but for functions that are in the place of others while elements run."""
        now = self.read()
        return now is not self.value and own_function(now) is not own_function(self.value)


def class_variables(kind: type) -> Iterator[Variable]:
    """The variables of a class, but for descriptors: methods and properties."""
    for name, value in vars(kind).items():
        if not name.startswith("__") and not hasattr(value, "__get__"):
            yield Variable(f"{kind.__name__}.{name}", partial(vars(kind).get, name), value)


def code_of(model: torch.nn.Module) -> list[Any]:
    """The methods of a model, its hooks and the functions that it has, among other things."""
    kinds = {base for one in model.modules() for base in type(one).__mro__}
    found: list[Any] = [*hooks_of(model), *(one for kind in kinds for one in vars(kind).values())]
    return [*found, *(one for module in model.modules() for one in vars(module).values())]


def variables_of(code: Iterable[Any]) -> list[Variable]:
    """What functions among `code`, and the functions they call, find in globals and in closures."""
    waiting = list(code)
    seen: set[int] = set()
    found: dict[tuple[int, str], Variable] = {}
    while waiting:
        one = waiting.pop()
        one = one.func if isinstance(one, partial) else one
        function = getattr(one, "__func__", one)
        if id(function) in seen or type(function) is not FunctionType or not _is_users(function.__code__.co_filename):
            continue
        seen.add(id(function))
        variables = function.__globals__
        names = {name for code in codes_of(function.__code__) for name in code.co_names} & variables.keys()
        new = {(id(variables), name): Variable(name, partial(variables.get, name), variables[name]) for name in names}
        for name, cell in _closure_of(function):
            new[id(cell), name] = Variable(name, partial(getattr, cell, "cell_contents", None), cell.cell_contents)
        for place in new.keys() - found.keys():
            value = new[place].value
            waiting.append(value)
            if isinstance(value, list | dict) and len(value) <= _MOST_SCANNED:
                waiting += value.values() if isinstance(value, dict) else value
        found.update(new)
    return list(found.values())


def _closure_of(function: FunctionType) -> list[tuple[str, CellType]]:
    """The variables of a function's closure that are set, by name."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return [(name, cell) for name, cell in cells if cell != _EMPTY]


def codes_of(code: CodeType) -> Iterator[CodeType]:
    """Code, and that of functions in it."""
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from codes_of(one)


@lru_cache(maxsize=1024)
def slots_of_class(kind: Any) -> tuple[str, ...]:
    """The names under which objects of a class have attributes outside of a dictionary."""
    found = [vars(base).get("__slots__", ()) for base in kind.__mro__]
    names = [name for one in found for name in ((one,) if isinstance(one, str) else one)]
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def hooks_of(root: torch.nn.Module | None) -> list[Callable[..., Any]]:
    """The hooks of a module and of those in it that run when it is called."""
    names = "_forward_hooks", "_forward_pre_hooks"
    modules = () if root is None else root.modules()
    return [hook for module in modules for name in names for hook in vars(module)[name].values()]


class ObjectsKept:
    """A context in which code may change no object that was there before: what it changed is put back.

    Parameters
    ----------
    name : str
        Of the cell.
    roots : list of callable
        The code and the hooks of its modules.

    Raises
    ------
    ChangesOthers
        At the end, if the code has changed one.
    """

    def __init__(self, name: str, roots: list[Callable[..., Any]]) -> None:
        self._name = name
        self._held: dict[int, Held] = {}
        self._names: list[tuple[dict[str, Any], str, Any]] = []
        self._cells: list[tuple[Any, Any]] = []
        self._seen: set[Any] = set()
        self._first: FrameType | None = None
        self._tracer: Any = None
        for root in roots:
            self._hold_root(root)

    def _hold_root(self, root: Any) -> None:
        if isinstance(root, partial):
            self._hold("an argument of a hook", [*root.args, *root.keywords.values()])
            root = root.func
        owner = root.__self__ if isinstance(root, MethodType) else root
        if type(getattr(owner, "__dict__", None)) is dict and not isinstance(owner, torch.nn.Module | FunctionType):
            self._hold(type(owner).__name__, vars(owner))  # of a package, too: hooks are there to keep something
        function = getattr(root, "__func__", root)
        for name, cell in _closure_of(function) if type(function) is FunctionType else ():
            self._cells.append((cell, cell.cell_contents))
            self._hold(name, cell.cell_contents)

    def _hold(self, name: str, value: Any, level: int = 0) -> None:
        if id(value) in self._held or not _is_held(value):
            return
        held = self._held[id(value)] = Held.of(name, value)
        if (
            level < _LEVELS
            and not isinstance(value, (*GENERATORS, np.ndarray, bytearray))
            and len(held.content) <= _MOST_SCANNED
        ):
            for one in list(held.content.values() if isinstance(held.content, dict) else held.content):
                self._hold(name, one, level + 1)

    def __enter__(self) -> None:
        self._first = sys._getframe(1)
        self._tracer = sys.gettrace()
        sys.settrace(self._called)

    def _called(self, frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if event != "call" or code in self._seen or not _is_users(code.co_filename):
            return
        self._seen.add(code)
        for name in code.co_names:
            if name in frame.f_globals:
                value = frame.f_globals[name]
                self._names.append((frame.f_globals, name, value))
                self._hold(name, value)
        if code.co_freevars:
            own = {id(one) for one in self._made_by_callers(frame)}
            for name in code.co_freevars:
                if name in frame.f_locals and id(frame.f_locals[name]) not in own:
                    self._hold(name, frame.f_locals[name])

    def _made_by_callers(self, frame: FrameType) -> Iterator[Any]:
        """What functions that are running have in variables of their own which functions in them use."""
        caller = frame.f_back
        while caller is not None and caller is not self._first:
            for name in caller.f_code.co_cellvars:
                if name in caller.f_locals:
                    yield caller.f_locals[name]
            caller = caller.f_back

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        sys.settrace(self._tracer)
        objects = [one for one in self._held.values() if one.is_changed]
        changed = [f"{type(one.value).__name__} {one.name!r}" for one in objects]
        changed += [f"variable {name!r}" for into, name, value in self._names if into.get(name) is not value]
        changed += ["variable of a closure" for cell, value in self._cells if cell.cell_contents is not value]
        for one in objects:
            one.put_back()
        for into, name, value in self._names:
            into[name] = value
        for cell, value in self._cells:
            cell.cell_contents = value
        if changed and (kind is None or issubclass(kind, Exception)):
            raise ChangesOthers(
                f"the code of cell {self._name!r} changes the {changed[0]}, which is no part of the model",
                "code that returns what it computes",
                "return it from the cell, and keep it in forward",
            ) from error
