"""Copies of a model that record: the same parameters and code, but for the cells."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from edbatch_tvm.errors import RecordingError
from edbatch_tvm.recording.library import Site
from edbatch_tvm.recording.parameters import RecordedParameters
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


def recording_views(
    model: torch.nn.Module, sites: Mapping[str, Site], recorder: Recorder, count: int
) -> Iterator[torch.nn.Module]:
    """Copies of `model` whose cells record, one for each instance.

    Modules on the way to a cell are copied for each instance, with the buffers and other submodules of the original;
    what ``forward`` sets on the model stays with the copy. Of other modules with parameters there is one copy for all.
    The parameters of copies are recorded ones.
    """
    cells = {id(site.target) for site in sites.values()}
    on_the_way = {path for name in sites for path in _prefixes(name)}
    shared: dict[int, torch.nn.Module] = {}

    def shared_copy(module: torch.nn.Module) -> torch.nn.Module:
        """A copy of `module` and what it consists of, if there are parameters among that; else itself."""
        if id(module) not in shared:
            shared[id(module)] = module  # where it contains itself
            if id(module) not in cells and not isinstance(module, torch.jit.ScriptModule):
                below = {name: one and shared_copy(one) for name, one in module._modules.items()}
                if module._parameters or any(one is not module._modules[name] for name, one in below.items()):
                    copy = shared[id(module)] = _shallow_copy(module, recorder)
                    copy._modules.update(below)
        return shared[id(module)]

    def copied(module: torch.nn.Module, path: str, copies: dict[str, torch.nn.Module]) -> torch.nn.Module:
        copy = copies[path] = _shallow_copy(module, recorder)
        for name, below in module._modules.items():
            inner = f"{path}.{name}" if path else name
            if below is not None:
                _replace(copy, name, copied(below, inner, copies) if inner in on_the_way else shared_copy(below))
        return copy

    for _ in range(count):
        copies: dict[str, torch.nn.Module] = {}
        copied(model, "", copies)
        for name, site in sites.items():
            path, _, last = name.rpartition(".")
            _replace(copies[path], last, CellCall(recorder, site))
        yield copies[""]


def _prefixes(name: str) -> Iterator[str]:
    """The modules that contain what `name` names, but for the model itself."""
    path = name.rpartition(".")[0]
    while path:
        yield path
        path = path.rpartition(".")[0]


def _shallow_copy(module: torch.nn.Module, recorder: Recorder) -> torch.nn.Module:
    copy = object.__new__(type(module))
    copy.__dict__ = vars(module).copy()
    copy.__dict__["_modules"] = vars(module)["_modules"].copy()
    if vars(module)["_parameters"]:
        copy.__dict__["_parameters"] = RecordedParameters(vars(module)["_parameters"], recorder)
    return copy


def _replace(module: torch.nn.Module, name: str, thing: Any) -> None:
    """Let the attribute `name` of `module` be `thing`, also for containers, which look among their submodules."""
    if name in module._modules:
        module._modules[name] = thing
    module.__dict__[name] = thing
