"""Attributes of modules that hold modules of the model: in a copy of the model they hold the copies.

Bound methods (``model.forward = model.decode``), partial functions, functions whose closure has the model
(``model.node = lambda x: model.cell(x)``), and lists, tuples and dicts of these and of modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import torch

OWN = frozenset(vars(torch.nn.Module())) | {"__dict__", "__class__"}
"""What every module has."""

_CONTAINERS = (list, tuple, dict)
_HOLDING = (*_CONTAINERS, MethodType, FunctionType, partial)
_MOST_DEPTH = 4

_MOST_ITEMS = 10_000
"""Items of a list or dict that are looked at."""


class Rebinding:
    """Finds what has to be replaced in copies of a model.

    Parameters
    ----------
    functions : mapping
        Functions that are replaced by others, by id.
    """

    def __init__(self, functions: dict[int, Any]) -> None:
        self._links: dict[int, list[tuple[str, Any]]] = {}
        self._functions = functions

    def links(self, module: torch.nn.Module) -> list[tuple[str, Any]]:
        """The attributes of a module that have to be replaced in a copy of it."""
        found = self._links.get(id(module))
        if found is None:
            own = vars(module).items()
            found = self._links[id(module)] = [(name, one) for name, one in own if name not in OWN and self.holds(one)]
        return found

    def holds(self, value: Any) -> bool:
        """Whether a value holds modules, or functions that are replaced."""
        kind = type(value)
        if kind not in _HOLDING and not isinstance(value, torch.nn.Module):
            return False
        return next(self.held(value), None) is not None

    def held(self, value: Any, depth: int = 0) -> Iterator[int]:
        """The ids of the modules that a value holds, and of functions that are replaced."""
        kind = type(value)
        items: Iterable[Any] = ()
        if kind in _CONTAINERS:
            if len(value) <= _MOST_ITEMS:
                items = value.values() if kind is dict else value
        elif kind is MethodType:
            items = (value.__self__,)
        elif kind is partial:
            items = (value.func, *value.args, *value.keywords.values())
        elif kind is FunctionType and id(value) not in self._functions:
            items = map(content_of, value.__closure__ or ())
        elif isinstance(value, torch.nn.Module) or id(value) in self._functions:
            yield id(value)
        if depth < _MOST_DEPTH:
            for item in items:
                if type(item) in _HOLDING or isinstance(item, torch.nn.Module):
                    yield from self.held(item, depth + 1)

    def rebound(self, value: Any, copied: Callable[[torch.nn.Module], Any]) -> Any:
        """`value` with copies of the modules that it holds."""
        kind = type(value)
        if isinstance(value, torch.nn.Module):
            return copied(value)
        if not self.holds(value):
            return value

        def again(item: Any) -> Any:
            return self.rebound(item, copied)

        if kind is dict:
            return {name: again(item) for name, item in value.items()}
        if kind in _CONTAINERS:
            return kind(map(again, value))
        if kind is MethodType:
            return MethodType(value.__func__, copied(value.__self__))
        if kind is partial:
            return partial(again(value.func), *map(again, value.args), **again(value.keywords))
        return self._functions[id(value)] if id(value) in self._functions else _with_closure(value, again)


_EMPTY = object()


def content_of(cell: CellType) -> Any:
    """What a cell of a closure holds."""
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _EMPTY


def _with_closure(function: FunctionType, again: Callable[[Any], Any]) -> FunctionType:
    """A function with other contents of its closure."""

    def renewed(cell: CellType) -> CellType:
        content = content_of(cell)
        new = again(content) if content is not function else function
        return cell if new is content else CellType(new)

    closure = tuple(map(renewed, function.__closure__ or ()))
    made = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, closure)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__dict__.update(vars(function))
    return made
