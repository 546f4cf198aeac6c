"""One minibatch: every element runs by a copy of the model, and together they compute what they have recorded."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch

from edbatch_tvm.recording import functions as _functions  # noqa: F401  (fills a table)
from edbatch_tvm.recording import losses as _losses  # noqa: F401  (fills a table)
from edbatch_tvm.recording.adopted import give_back
from edbatch_tvm.recording.breaks import Break
from edbatch_tvm.recording.called_functions import CalledFunctions, recording_calls
from edbatch_tvm.recording.changed_tensors import check_buffers, check_variables, check_weights
from edbatch_tvm.recording.copies import Copies
from edbatch_tvm.recording.core import core
from edbatch_tvm.recording.driver import Driver
from edbatch_tvm.recording.exporting import EXPORTING
from edbatch_tvm.recording.failures import CallError, explain
from edbatch_tvm.recording.grad_mode import grad_mode_noted
from edbatch_tvm.recording.isolation import outside_of_saved_tensor_hooks, outside_of_transforms, state, switched_to
from edbatch_tvm.recording.library import Library
from edbatch_tvm.recording.model_state import parts_of, places_of
from edbatch_tvm.recording.read_variables import ReadVariables
from edbatch_tvm.recording.recorded_elements import Content
from edbatch_tvm.recording.recorded_together import RecordedElements
from edbatch_tvm.recording.recorder import Recorder
from edbatch_tvm.recording.results import computed_results
from edbatch_tvm.recording.set_attributes import Carried
from edbatch_tvm.recording.site import Site
from edbatch_tvm.recording.torch_functions import replaced_functions

Function = Callable[[torch.nn.Module], Any]
"""Runs an element by a copy of the model."""


class Known(NamedTuple):
    """What is known of a model in one state.

    Attributes
    ----------
    structure : object
        The state, see :func:`~edbatch_tvm.recording.model_state.structure_of`.
    sites : dict of str to Site
        The cells.
    library : Library
    functions : CalledFunctions
        The cells that are functions.
    buffers : list of tuple
        The buffers, and copies of them.
    variables : ReadVariables
        Globals and the like that the cells read.
    """

    structure: Any
    sites: dict[str, Site]
    library: Library
    functions: CalledFunctions
    buffers: list[tuple[torch.Tensor, torch.Tensor]]
    variables: ReadVariables


def run_minibatch(
    model: torch.nn.Module,
    known: Known,
    carried: Carried,
    functions: list[Function],
    compute: Callable[[Recorder], Any],
    first: int,
    contents: Sequence[Content] = (),
) -> tuple[list[Any], list[Any], list[Break]]:
    """Run elements together.

    Parameters
    ----------
    model : torch.nn.Module
    known : Known
    carried : Carried
    functions : list of callable
        One for each element.
    compute : callable
        Computes what a recorder has recorded.
    first : int
        The number of the first element, for errors.
    contents : sequence of Content
        Elements that were recorded before.

    Returns
    -------
    results : list
        What the functions return, with ordinary tensors.
    recorded : list
        The results of `contents`.
    breaks : list of Break
    """
    recorded = RecordedElements(contents)
    if contents and not functions:
        recorder = Recorder(known.library, lambda: None)
        recorder.records = recorded
        compute(recorder)
        return [], recorded.results, []

    def computed() -> None:
        # Who asks may have switched gradients off, or be inside of a transform.
        own, hooks = known.library.state, outside_of_saved_tensor_hooks()
        with recording_calls(None), outside_of_transforms(), hooks, switched_to(own):
            compute(recorder)

    driver = Driver(computed, lambda: copies.after_round(), first)
    recorder = Recorder(known.library, driver.wait, computed)
    driver.resumed = recorder.resumed
    recorder.records = recorded if contents else None
    known.library.state = state()
    # What these change, nobody knows yet.
    recorder.first = known.library.code.model is None and len(functions) == 1 and not contents
    recorder.at_once = recorder.first and (bool(known.buffers) or bool(known.variables))
    copies = Copies(model, known.sites, recorder, functions, carried, driver.wait)
    driver.before_wait = copies.before_wait
    copies.first = first
    parts = parts_of(model)
    places = places_of(parts)
    recorder.run_in_order = partial(carried.run_in_order, len(functions))

    def run(number: int, function: Function, copy: torch.nn.Module) -> Any:
        element = copies.elements[number]
        element.started = True
        try:
            with recording_calls(copies.calls):
                return function(copy)
        finally:
            copies.note_unseen(element)
            element.ended = True

    collecting = collections_later() if known.library.code.is_current else nullcontext()
    with replaced_functions(), known.functions.replaced(), collecting, grad_mode_noted(recorder):
        try:
            with EXPORTING:
                models = [copies.of(number) for number in range(len(functions))]
            tasks = zip(range(len(functions)), functions, models, strict=True)
            try:
                results = driver.run([partial(run, *task) for task in tasks])
            except Exception:
                if driver.failed is not None:
                    computed()
                    copies.leave(lambda value: computed_results(value, recorder), driver.failed)
                raise
            computed()
            copies.note_unseen()
            copies.check(driver.rounds, driver.late_variable)
            elements = 1 if recorder.first else len(functions)
            check_buffers(model, known, carried, recorder.first)
            check_variables(known, carried, elements)
            check_weights(model, recorder, carried, places, elements)
        except BaseException as error:
            core.minibatch_ended()
            if isinstance(error, CallError):
                explain(error, recorder, functions, model, first)
            raise
        finally:
            give_back(recorder)
            recorder.forget_parameters()
        copies.leave(lambda value: computed_results(value, recorder))
        results = computed_results(results, recorder)
        give_back(recorder)  # what views kept
    # Not to be left to the garbage collector: a minibatch holds megabytes.
    recorder.finish()
    driver.finish()
    copies.let_go()
    core.minibatch_ended()
    return results, recorded.results, recorder.breaks


@contextmanager
def collections_later() -> Iterator[None]:
    """No garbage collection for now: recording makes many objects, and each collection would look at all of them.

    Nor does the next one afterwards: what is alive then has lived long enough to count as old.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # else somebody keeps objects out of all collections
                gc.freeze()
                gc.unfreeze()
            gc.enable()
