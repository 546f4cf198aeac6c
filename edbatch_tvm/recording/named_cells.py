"""What `cells=[...]` names, in a model."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch

from edbatch_tvm.errors import RecordingError
from edbatch_tvm.recording.library import Site


def find_named_cells(model: torch.nn.Module, cells: Sequence[str]) -> dict[str, Site]:
    """What `cells` name: submodules and methods of `model` and of its submodules.

    Raises
    ------
    RecordingError
        Naming what is neither.
    """
    if isinstance(cells, str) or not cells:
        raise RecordingError(f"cells={cells!r}", "a list of names of submodules and methods", 'cells=["cell"]')
    return {name: _site(model, name) for name in cells}


def _site(model: torch.nn.Module, name: str) -> Site:
    if not isinstance(name, str):
        raise RecordingError(f"a cell is a {type(name).__name__}", "the name of a submodule or method")
    path, _, last = name.rpartition(".")
    try:
        owner = model.get_submodule(path)
        target = getattr(owner, last)
    except AttributeError:
        if isinstance(model, torch.nn.DataParallel) and not name.startswith("module."):
            return _site(model, f"module.{name}")
        raise _unknown(model, name) from None
    if isinstance(target, torch.nn.Module):
        return Site(name, target, target)
    if last == "forward" and not path:
        raise RecordingError("the model's own forward as a cell", "submodules and methods that forward calls")
    if not callable(target) or isinstance(target, type):
        raise _unknown(model, name)
    return Site(name, target, owner)


def _unknown(model: torch.nn.Module, name: str) -> RecordingError:
    submodules = [path for path, _ in model.named_modules() if path]
    methods = [key for key in vars(type(model)) if callable(getattr(model, key, None)) and not key.startswith("_")]
    known = [*submodules, *(method for method in methods if method != "forward")]
    near = difflib.get_close_matches(name, known, 1)
    return RecordingError(
        f"{type(model).__name__} has no submodule or method {name!r}",
        f"one of {', '.join(known)}" if known else "a submodule or method",
        f"did you mean {near[0]!r}?" if near else "",
    )
