"""Copies of a model that record: the same parameters and code, but for the cells."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from edbatch_tvm.errors import RecordingError
from edbatch_tvm.recording.library import Site
from edbatch_tvm.recording.recorder import CellCall, Recorder


def find_sites(model: torch.nn.Module, cells: Sequence[str]) -> dict[str, Site]:
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


def recording_view(model: torch.nn.Module, sites: Mapping[str, Site], recorder: Recorder) -> torch.nn.Module:
    """A copy of `model` whose cells record.

    Modules on the way to a cell are copied, with the parameters, buffers and other submodules of the original; what
    ``forward`` sets on the model stays with the copy.
    """
    copies: dict[str, torch.nn.Module] = {}

    def copy_of(path: str) -> torch.nn.Module:
        if path not in copies:
            copy = copies[path] = _shallow_copy(model.get_submodule(path))
            if path:
                above, _, last = path.rpartition(".")
                _replace(copy_of(above), last, copy)
        return copies[path]

    view = copy_of("")
    for name, site in sites.items():
        path, _, last = name.rpartition(".")
        _replace(copy_of(path), last, CellCall(recorder, site))
    return view


def _shallow_copy(module: torch.nn.Module) -> torch.nn.Module:
    copy = object.__new__(type(module))
    copy.__dict__ = vars(module).copy()
    copy.__dict__["_modules"] = vars(module)["_modules"].copy()
    return copy


def _replace(module: torch.nn.Module, name: str, thing: Any) -> None:
    """Let the attribute `name` of `module` be `thing`, also for containers, which look among their submodules."""
    if name in module._modules:
        module._modules[name] = thing
    module.__dict__[name] = thing
