"""Variables of modules and closures that the code of cells reads: constants of compiled cells, as long as they stay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from types import FunctionType
from typing import Any

import torch

from edbatch_tvm.recording.held_objects import Variable, class_variables, code_of, codes_of, is_of_user, variables_of
from edbatch_tvm.recording.site import Site
from edbatch_tvm.recording.watched_objects import MOST, WatchedObjects, is_state


class ReadVariables:
    """The variables, and what is in them, at one time.

    Parameters
    ----------
    sites : iterable of Site
    """

    def __init__(self, sites: Iterable[Site]) -> None:
        sites = list(sites)
        found = variables_of(one for site in sites for one in _code_of(site))
        self._variables = list(found)
        self._variables += [one for variable in found for one in _of_class(variable)]
        self._variables += [one for site in sites for one in _of_modules_class(site)]
        self._watched = WatchedObjects((one.name, one.value) for one in self._variables if is_state(one.value))

    def __bool__(self) -> bool:
        return bool(self._variables)

    @property
    def too_many(self) -> str:
        """Why changes cannot be seen; "" if they can."""
        name = self._watched.too_many
        return name and f"cells read {name}, in which there are more than {MOST:,} objects"

    def changed(self) -> str:
        """The name of one that has changed; "" if none has."""
        for one in self._variables:
            if one.is_changed:
                return one.name
        watched = self._watched.changed()
        return "" if watched is None else watched.name


def _code_of(site: Site) -> Iterator[Any]:
    """The code that a cell may run: a function, and the methods of its module that it names."""
    if isinstance(site.target, torch.nn.Module):
        yield from code_of(site.target)
        return
    waiting = [site.target]
    seen: set[str] = set()
    while waiting:
        function = waiting.pop()
        yield function
        plain = getattr(function, "__func__", function)
        names = set(plain.__code__.co_names) - seen if type(plain) is FunctionType else set()
        seen |= names
        if site.owner is not None:
            owner = site.owner
            waiting += [one for one in (getattr(owner, name, None) for name in names) if callable(one)]


def _of_modules_class(site: Site) -> Iterator[Variable]:
    """The variables of the classes of a cell's modules that its code reads by the class: ``type(self).scale``.

    What it reads by the module (``self.scale``) is an attribute of that. Cells make no modules, so ``__init__``, which
    has its class in a closure, does not count.
    """
    names: set[str] = set()
    for one in _code_of(site):
        code = getattr(getattr(one, "__func__", one), "__code__", None)
        if code is not None and code.co_name != "__init__":
            names |= {name for inner in codes_of(code) for name in inner.co_names + inner.co_freevars}
    kinds = {base for one in site.owner.modules() for base in type(one).__mro__} if site.owner is not None else set()
    by_class = {"type", "__class__", *(kind.__name__ for kind in kinds)}
    if by_class.isdisjoint(names):
        return
    for kind in filter(is_of_user, kinds):
        for name in names:
            value = _of_kind(kind, name)
            if not callable(value) and not hasattr(value, "__get__"):
                yield Variable(f"{kind.__name__}.{name}", partial(_of_kind, kind, name), value)


def _of_kind(kind: type, name: str) -> Any:
    """What a class or one above it has under a name; None if nothing."""
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)


def _of_class(variable: Variable) -> Iterator[Variable]:
    """The variables of a class of the user's."""
    kind = variable.value
    if isinstance(kind, type) and is_of_user(kind) and not issubclass(kind, torch.nn.Module):
        yield from class_variables(kind)
