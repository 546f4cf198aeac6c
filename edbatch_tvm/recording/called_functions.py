"""Functions that are cells: while elements run, calls of them by any name come here.

A function is replaced in the namespaces of modules that have it, and in the classes of the model. What replaces it
records where an element runs, and calls the function anywhere else: in other threads, and while a cell is exported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

import torch

from edbatch_tvm.fork_lock import fork_lock
from edbatch_tvm.recording.held_objects import STANDS_FOR
from edbatch_tvm.recording.rebinding import content_of

_CALLS: ContextVar[Mapping[int, Callable[..., Any]] | None] = ContextVar("_CALLS", default=None)
"""What records calls of functions for the element that runs, by id of the function; None where none runs."""


@contextmanager
def recording_calls(calls: Mapping[int, Callable[..., Any]] | None) -> Iterator[None]:
    """A context in which `calls` record."""
    token = _CALLS.set(calls)
    try:
        yield
    finally:
        _CALLS.reset(token)


class CalledFunctions:
    """The functions that are cells, and where they are.

    Parameters
    ----------
    functions : list of callable
    model : torch.nn.Module
    """

    def __init__(self, functions: list[Callable[..., Any]], model: torch.nn.Module) -> None:
        self._lock = fork_lock()
        self._users = 0
        stands = {id(function): _redirected(function) for function in functions}
        self._places = [_Place(*found, stands) for found in _found(functions, model)]

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """A context in which calls of the functions are recorded where an element runs."""
        if not self._places:
            yield
            return
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            before, self._users = self._users, self._users + change
            if bool(before) != bool(self._users):
                for place in self._places:
                    place.switch(bool(self._users))


class _Place:
    """One place that has a function: a namespace, a class or a closure."""

    def __init__(self, owner: Any, name: str, value: Any, stands: Mapping[int, Any]) -> None:
        self._owner = owner
        self._name = name
        self._original = value
        static = isinstance(value, staticmethod)
        stand = stands[id(value.__func__ if static else value)]
        self._stand = staticmethod(stand) if static else stand

    def switch(self, on: bool) -> None:
        """Put there what records, or the function; what somebody else has put there stays."""
        was, new = (self._original, self._stand) if on else (self._stand, self._original)
        if type(self._owner) is dict:
            if self._owner.get(self._name) is was:
                self._owner[self._name] = new
        elif isinstance(self._owner, type):
            if vars(self._owner).get(self._name) is was:
                setattr(self._owner, self._name, new)
        elif self._owner.cell_contents is was:
            self._owner.cell_contents = new


def _redirected(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        calls = _CALLS.get()
        found = None if calls is None else calls.get(id(function))
        return function(*arguments, **named) if found is None else found(*arguments, **named)

    setattr(call, STANDS_FOR, function)
    return call


def _found(functions: list[Callable[..., Any]], model: torch.nn.Module) -> Iterator[tuple[Any, str, Any]]:
    """The namespaces, classes and closures that have one of the functions, its name there, and what is there."""
    if not functions:
        return
    wanted = {id(function) for function in functions}
    spaces = [getattr(module, "__dict__", None) for module in list(sys.modules.values())]
    spaces += [getattr(function, "__globals__", None) for function in functions]
    for space in {id(space): space for space in spaces}.values():
        if type(space) is dict:
            yield from ((space, name, value) for name, value in list(space.items()) if id(value) in wanted)
    closures: list[Any] = list(functions)
    for kind in dict.fromkeys(kind for module in model.modules() for kind in type(module).__mro__):
        if kind is object or kind.__module__.startswith("torch."):
            continue
        for name, value in vars(kind).items():
            if id(value.__func__ if isinstance(value, staticmethod) else value) in wanted:
                yield kind, name, value
            closures.append(value)
    cells = [cell for one in closures for cell in getattr(one, "__closure__", None) or ()]
    for cell in {id(cell): cell for cell in cells}.values():
        if id(content_of(cell)) in wanted:
            yield cell, "", cell.cell_contents
