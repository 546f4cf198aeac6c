"""What `cells=[...]` lists, in a model."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch

from edbatch_tvm.errors import CellWarning, RecordingError
from edbatch_tvm.recording.library import Library
from edbatch_tvm.recording.site import Site
from edbatch_tvm.recording.source_locations import users_place
from edbatch_tvm.recording.uncompiled import original, original_method, path_as_written


def listed(cells: Any) -> list[Any]:
    """The cells that a user lists.

    Raises
    ------
    RecordingError
        If it is no list of them.
    """
    if isinstance(cells, str) or not isinstance(cells, Iterable) or not (found := list(cells)):
        hint = 'cells=["cell"], or leave it out: then cells are chosen'
        raise RecordingError(f"cells={cells!r}", "a list of submodules, methods and functions", hint)
    return found


def check_entry(model: torch.nn.Module, entry: str) -> None:
    """Check that a model has the method `entry`.

    Raises
    ------
    RecordingError
        Naming it.
    """
    if not isinstance(entry, str) or isinstance(getattr(model, entry, 0), torch.nn.Module | int):
        raise RecordingError(f"entry={entry!r}", f"the name of a method of {type(model).__name__}", _near(model, entry))


def find_cells(model: torch.nn.Module, cells: Sequence[Any], entry: str = "forward") -> dict[str, Site]:
    """What `cells` list: submodules and methods of `model` and of its submodules, and functions.

    Raises
    ------
    RecordingError
        If one of `cells` is something else; it is named.
    """
    sites: dict[str, Site] = {}
    for cell in cells:
        name = cell if isinstance(cell, str) else _name_of(model, cell)
        site = Site(_free(cell.__name__, sites), cell, None) if name is None else _site(model, name)
        if name in ("forward", entry):
            raise RecordingError(f"the model's own {name} as a cell", "submodules and methods that it calls")
        sites[site.name if name is None else name] = site
    return sites


def _free(name: str, sites: Mapping[str, Site]) -> str:
    """A name that no cell has."""
    number = 2
    found = name
    while found in sites:
        found, number = f"{name}_{number}", number + 1
    return found


def _name_of(model: torch.nn.Module, cell: Any) -> str | None:
    """The name of a submodule or method of a model; None for a function that is none."""
    owner = cell if isinstance(cell, torch.nn.Module) else getattr(cell, "__self__", None)
    if isinstance(owner, torch.nn.Module):
        for path, module in model.named_modules():
            if module is owner:
                path = path_as_written(path)
                return path if owner is cell else f"{path}.{cell.__name__}" if path else cell.__name__
        raise RecordingError(f"a cell that is of no submodule of {type(model).__name__}: {_shown(cell)}", "one of it")
    if isinstance(cell, FunctionType):
        for path, module in model.named_modules():
            if any(vars(kind).get(cell.__name__) is cell for kind in type(module).__mro__):
                return f"{path}.{cell.__name__}" if path else cell.__name__
        return None
    expected = "the name of a submodule or method, one itself, or a Python function"
    if isinstance(cell, BuiltinFunctionType | MethodType):
        raise RecordingError(f"{_shown(cell)} as a cell", expected, "functions of PyTorch are recorded anyway")
    raise RecordingError(f"a cell is a {type(cell).__name__}", expected)


def _shown(cell: Any) -> str:
    return getattr(cell, "__name__", type(cell).__name__)


def _site(model: torch.nn.Module, name: str) -> Site:
    path, _, last = name.rpartition(".")
    try:
        owner = model.get_submodule(path)
        target = getattr(owner, last)
    except AttributeError:
        if isinstance(model, torch.nn.DataParallel) and not name.startswith("module."):
            return _site(model, f"module.{name}")
        raise _unknown(model, name) from None
    owner, target = original(owner), original_method(original(target))
    if isinstance(target, torch.nn.Module):
        return Site(name, target, target)
    if last == "forward" and path:
        return Site(name, owner, owner)
    if not callable(target) or isinstance(target, type):
        raise _unknown(model, name)
    return Site(name, target, owner)


def _unknown(model: torch.nn.Module, name: str) -> RecordingError:
    known = [one for one in _names(model) if one != "forward"]
    expected = f"one of {', '.join(known)}" if known else "a submodule or method"
    return RecordingError(f"{type(model).__name__} has no submodule or method {name!r}", expected, _near(model, name))


def _names(model: torch.nn.Module) -> list[str]:
    submodules = [path for path, _ in model.named_modules() if path]
    methods = [key for key in vars(type(model)) if callable(getattr(model, key, None)) and not key.startswith("_")]
    return [*submodules, *methods]


def _near(model: torch.nn.Module, name: Any) -> str:
    near = difflib.get_close_matches(str(name), _names(model), 1)
    return f"did you mean {near[0]!r}?" if near else ""


def warn_of_uncalled(model: torch.nn.Module, sites: Mapping[str, Site], library: Library) -> None:
    """Warn of cells that were not called in the first minibatch, and of a minibatch of which nothing was recorded."""
    broken = {operation for _, _, operation in library.told}
    uncalled = [name for name, site in sites.items() if not site.was_called and f"cell {site.name!r}" not in broken]
    if not uncalled and library.cells:
        return
    kind = type(model).__name__
    if library.cells:
        cells = ", ".join(map(repr, uncalled))
        text = f"{'cells' if len(uncalled) > 1 else 'cell'} {cells} of {kind} not called by the first minibatch, or "
        text += "only within other cells: leave out what is never called by itself"
    else:
        text = f"nothing of {kind} was recorded, and nothing is batched"
        text += f": it has not called {', '.join(map(repr, uncalled))}" if uncalled else ""
        text += "" if uncalled or not broken else ": PyTorch runs its cells, as warnings of breaks say"
    file, line = users_place()
    warnings.warn_explicit(text, CellWarning, file, line)
