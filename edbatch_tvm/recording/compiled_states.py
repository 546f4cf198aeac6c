"""The states that a model is called in, such as training and evaluation mode, and the cells compiled for each."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from edbatch_tvm.recording.called_functions import CalledFunctions
from edbatch_tvm.recording.compiled_cells import same_numbers
from edbatch_tvm.recording.elements import require_gradients
from edbatch_tvm.recording.exporting import EXPORTING
from edbatch_tvm.recording.library import Library
from edbatch_tvm.recording.minibatch import Known
from edbatch_tvm.recording.model_state import (
    ModelParts,
    buffers_of,
    check_device,
    parts_of,
    places_of,
    structure_of,
    trains,
)
from edbatch_tvm.recording.named_cells import find_cells
from edbatch_tvm.recording.read_variables import ReadVariables
from edbatch_tvm.recording.set_attributes import Carried
from edbatch_tvm.recording.site import code_sites

_MOST_KNOWN = 4
"""States whose compiled cells are kept."""

_MOST_RESTARTS = 3
"""How often cells are compiled anew since a variable that they read has changed."""

_MOST_NEW_CODE = 10
"""The same where functions or hooks that they call have: those are put on and taken off."""


class CompiledStates:
    """The states of a model that calls have met.

    Parameters
    ----------
    model : torch.nn.Module
    entry : str
        The method that runs for each element.
    options : dict
        Of :func:`edbatch_tvm.autobatch`.
    cells : list, optional
        What becomes cells; None while that is not chosen.

    Attributes
    ----------
    carried : Carried
        What calls of the model set.
    """

    def __init__(self, model: torch.nn.Module, entry: str, options: dict[str, Any], cells: list[Any] | None) -> None:
        self.model = model
        self.carried = Carried()
        self._here = threading.local()
        self._entry = entry
        self._options = options
        self._known: dict[Any, Known] = {}
        self._restarts = 0
        self.start(parts_of(model, self.carried.moving), cells)

    @property
    def now(self) -> Known:
        """What is compiled for the state that the model is in, for this thread: others may record gradients or not."""
        known: Known = getattr(self._here, "now", self._latest)
        return known

    @now.setter
    def now(self, known: Known) -> None:
        self._here.now = self._latest = known

    def parts(self, functions: Sequence[Any]) -> ModelParts:
        """The model, for calls of `functions`: inputs of a model that is frozen may require gradients."""
        parts = parts_of(self.model, self.carried.moving)
        if not torch.is_grad_enabled() or trains(parts):
            return parts
        arguments = [one.keywords for one in functions if type(one) is partial]
        return parts._replace(inputs=require_gradients(arguments))

    def start(self, parts: ModelParts, cells: list[Any] | None) -> None:
        """Have no compiled cells for the model as it is."""
        self._cells = cells
        structure = _structure(parts)
        sites = find_cells(self.model, cells or (), self._entry)
        library = Library(
            self.model, self._options, sites.values(), trains(parts), self.carried.moving, self.carried.names
        )
        functions = CalledFunctions([site.target for site in sites.values() if site.owner is None], self.model)
        buffers, variables = buffers_of(parts), ReadVariables(sites.values())
        self.carried.in_order = self.carried.in_order or variables.too_many
        self.now = self._known[structure] = Known(structure, sites, library, functions, buffers, variables)
        self._places = places_of(parts)
        while len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def take_over_changes(self, functions: Sequence[Any] = ()) -> None:
        """Have compiled cells for the model as it is: those of another state, or none if what they read has changed."""
        with EXPORTING:
            parts = self.parts(functions)
            check_device(self.model, parts)
            structure, places = _structure(parts), places_of(parts)
        known = self._known.get(structure, self.now)
        if known is not self.now:
            self.now = known
            known.library.code.refresh()
        variable = known.variables.changed()
        code = next((changed for site in code_sites(known.sites.values()) if (changed := site.code.changed())), "")
        if variable or code:
            self._restarts += 1
            if self._restarts > (_MOST_RESTARTS if variable else _MOST_NEW_CODE):
                self.carried.in_order = f"cells read {variable or code}, which changes between calls"
        buffers_hold = all(same_numbers(buffer, seen) for buffer, seen in known.buffers)
        if structure != known.structure or variable or code or not buffers_hold:
            with EXPORTING:
                self.start(parts, self._cells)
        library = self.now.library
        if places != self._places or (not library.slower and library.code.weights_changed()):
            library.code.refresh()
            self._places = places
        self._take_over_constants()

    def _take_over_constants(self) -> None:
        """Let attributes that cells read as constants, and that have changed, be read anew."""
        for site in code_sites(self.now.sites.values()):
            for attribute, value in list(site.constants.items()):
                now = attribute.value(site.owner) if site.owner is not None else value
                if isinstance(value, torch.Tensor):  # a buffer: compared before
                    continue
                if now is not value and (type(now) is not type(value) or now != value):
                    site.read(attribute)


def _structure(parts: ModelParts) -> Any:
    """What cells are compiled for: the model in this mode, and whether gradients are recorded."""
    return structure_of(parts), trains(parts)
