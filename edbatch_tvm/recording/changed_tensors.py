"""Buffers, parameters and variables that ``forward`` changes and that cells read, within one call.

A buffer is a constant of the cells that read it until an element is seen to change it; from then on it is an argument
of every call, as attributes are. Calls of cells that were recorded before a change, and are computed after it, would
read the new numbers: so the first elements compute every call at once, and later ones, which should not do anything
else, end in an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from edbatch_tvm.errors import RecordingError
from edbatch_tvm.recording.compiled_cells import same_numbers
from edbatch_tvm.recording.lazy import is_lazy
from edbatch_tvm.recording.model_state import parts_of, places_of
from edbatch_tvm.recording.recorder import Recorder
from edbatch_tvm.recording.set_attributes import Carried
from edbatch_tvm.recording.site import Site, code_sites
from edbatch_tvm.recording.watched_objects import numbers_of

if TYPE_CHECKING:
    from edbatch_tvm.recording.minibatch import Known


def check_buffers(model: torch.nn.Module, known: Known, carried: Carried, first: bool) -> None:
    """Note which buffers elements have changed: arguments of the cells that read them from now on.

    Parameters
    ----------
    model : torch.nn.Module
    known : Known
        Its buffers as they were before the call.
    carried : Carried
    first : bool
        Whether these are first elements, of which every call was computed at once.

    Raises
    ------
    RecordingError
        If a cell has read one as a constant.
    """
    # One that recorded values were written into is a recorded tensor still.
    changed = {id(one) for one, seen in known.buffers if is_lazy(one) or not same_numbers(one, seen)}
    if not changed:
        return
    names = ""
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if id(buffer) in changed and (id(module), name) not in carried.moving:
                carried.moving.add((id(module), name))
                if _become_arguments(known.sites, module, name):
                    names = names or f"{path}.{name}".lstrip(".")
    given = (one for module in known.library.given_modules.values() for one in module.module.buffers())
    if not changed.isdisjoint(map(id, given)):
        carried.run_in_order(1 if first else 2, "forward changes a buffer of a module that is an argument of a cell")
    if names and not first:
        raise RecordingError(
            f"forward changes the buffer {names}, which cells have read as a constant in this call",
            "buffers that change in the first call, or between calls",
            "call again: it is an argument of cells now",
        )


def _become_arguments(sites: Mapping[str, Site], module: torch.nn.Module, name: str) -> bool:
    """Let a buffer be an argument of the cells that read it; whether there are any."""
    found = False
    for site in code_sites(sites.values()):
        for attribute in list(site.constants):
            if site.owner is not None and attribute.name == name and attribute.of(site.owner)[0] is module:
                site.read(attribute)
                found = True
    return found


def check_variables(known: Known, carried: Carried, elements: int) -> None:
    """Check that elements have changed no variable that cells read.

    Raises
    ------
    RecordingError
        Naming the variable.
    """
    variable = "" if carried.in_order else known.variables.changed()
    if variable:
        carried.run_in_order(elements, f"forward changes {variable}, which cells read")


def check_weights(
    model: torch.nn.Module,
    recorder: Recorder,
    carried: Carried,
    places: list[tuple[int, int]],
    elements: int,
) -> None:
    """Check that elements have written into no weight of a cell, whose calls may have been computed before or after.

    Raises
    ------
    RecordingError
        Naming the weight.
    """
    now = parts_of(model)
    later = places_of(now)
    changed = {id(one) for one, digest in recorder.exposed.values() if numbers_of(one) != digest}
    if later != places:
        of_parameters = zip(now.parameters, places, later, strict=False)
        changed |= {id(one) for one, before, after in of_parameters if before != after}
    changed &= recorder.library.used_weights() if changed else set()
    for name, one in model.named_parameters() if changed else ():
        if id(one) in changed:
            carried.run_in_order(elements, f"forward writes into {name}, which cells compute with")
