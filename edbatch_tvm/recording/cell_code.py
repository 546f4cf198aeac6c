"""The code that a cell runs besides the module that it belongs to: methods, functions among attributes, hooks."""

from __future__ import annotations

from collections.abc import Iterable
from operator import is_
from typing import Any

import torch

from edbatch_tvm.recording.held_objects import own_function
from relay_ext.module_structure import HOOKS

_HOOKS_OF_ALL = [
    value
    for name, value in vars(torch.nn.modules.module).items()
    if name.startswith("_global") and "_hooks" in name and isinstance(value, dict)
]


class CellCode:
    """What code of a cell has found: as long as it stays, what was compiled of it is what it does."""

    def __init__(self) -> None:
        self._functions: dict[tuple[int, str], tuple[torch.nn.Module, str, Any]] = {}
        self._hooks: dict[int, tuple[dict[Any, Any], list[Any]]] = {}
        self._hold(_HOOKS_OF_ALL)

    def note_function(self, module: torch.nn.Module, name: str) -> None:
        """Note the function that a module or its class has under a name."""
        self._functions.setdefault((id(module), name), (module, name, _found(module, name)))

    def note_call(self, module: torch.nn.Module) -> None:
        """Note that a module is called, and with it its hooks."""
        self.note_function(module, "forward")
        self._hold(vars(module)[name] for name in HOOKS)

    def _hold(self, hooks: Iterable[dict[Any, Any]]) -> None:
        for one in hooks:
            self._hooks.setdefault(id(one), (one, list(one.values())))

    def leave_out(self, module: torch.nn.Module, name: str) -> None:
        """Forget a function that elements set: calls of the cell are given it."""
        self._functions.pop((id(module), name), None)

    def changed(self) -> str:
        """The name of what has changed; "" if nothing has."""
        for module, name, value in self._functions.values():
            if _found(module, name) is not value:
                return f"{type(module).__name__}.{name}"
        for hooks, before in self._hooks.values():
            if len(hooks) != len(before) or not all(map(is_, hooks.values(), before)):
                return "hooks of modules"
        return ""


def _found(module: torch.nn.Module, name: str) -> Any:
    if name in vars(module):
        return vars(module)[name]
    return own_function(next((vars(base)[name] for base in type(module).__mro__ if name in vars(base)), None))
