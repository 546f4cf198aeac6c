"""One minibatch: every element runs by a copy of the model, and together they compute what they have recorded."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils import _pytree as pytree

from edbatch_tvm.recording import functions as _functions  # noqa: F401  (fills a table)
from edbatch_tvm.recording.adopted import give_back
from edbatch_tvm.recording.called_functions import CalledFunctions, recording_calls
from edbatch_tvm.recording.copies import Carried, Copies
from edbatch_tvm.recording.driver import Driver
from edbatch_tvm.recording.failures import CallError, explain
from edbatch_tvm.recording.flush import rows_of_values
from edbatch_tvm.recording.isolation import state
from edbatch_tvm.recording.lazy import LazyTensor, is_lazy
from edbatch_tvm.recording.library import Library
from edbatch_tvm.recording.parameters import own_parameter
from edbatch_tvm.recording.recorder import Break, Recorder
from edbatch_tvm.recording.site import Site
from edbatch_tvm.recording.specs import TensorSpec
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
    """

    structure: Any
    sites: dict[str, Site]
    library: Library
    functions: CalledFunctions
    buffers: list[tuple[torch.Tensor, torch.Tensor]]


def run_minibatch(
    model: torch.nn.Module,
    known: Known,
    carried: Carried,
    functions: list[Function],
    compute: Callable[[Recorder], Any],
    first: int,
) -> tuple[list[Any], list[Break]]:
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

    Returns
    -------
    results : list
        What the functions return, with ordinary tensors.
    breaks : list of Break
    """

    def computed() -> None:
        with recording_calls(None):
            compute(recorder)

    driver = Driver(computed, lambda: copies.after_round(), lambda number: recorder.resumed(number), first)
    recorder = Recorder(known.library, driver.wait, computed)
    known.library.state = state()
    copies = Copies(model, known.sites, recorder, len(functions), carried, driver.wait)

    def run(number: int, function: Function, copy: torch.nn.Module) -> Any:
        element = copies.elements[number]
        element.started = True
        try:
            with recording_calls(copies.calls):
                return function(copy)
        finally:
            element.ended = True

    collecting = collections_later() if known.library.is_compiled else nullcontext()
    with replaced_functions(), known.functions.replaced(), collecting:
        try:
            models = [copies.of(number) for number in range(len(functions))]
            tasks = zip(range(len(functions)), functions, models, strict=True)
            results = driver.run([partial(run, *task) for task in tasks])
            computed()
            copies.check(driver.rounds)
        except CallError as error:
            explain(error, recorder, functions, model, first)
            raise
        finally:
            give_back(recorder)
        copies.leave(lambda value: _computed(value, recorder))
        results = _computed(results, recorder)
        give_back(recorder)  # what views kept
    recorder.finished = True
    return results, recorder.breaks


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


def _computed(results: Any, recorder: Recorder) -> Any:
    """`results` with recorded tensors computed: copies that share no memory with the arenas."""
    leaves, structure = pytree.tree_flatten(results)
    by_spec: dict[TensorSpec, list[LazyTensor]] = {}
    for leaf in leaves:
        if type(leaf) is LazyTensor and leaf.recorder is recorder and leaf.held is None and leaf.value >= 0:
            by_spec.setdefault(leaf.spec, []).append(leaf)
    tensors: dict[int, torch.Tensor] = {}
    for spec, members in by_spec.items():
        values = np.array([member.value for member in members], np.int64)
        for positions, found in rows_of_values(recorder.epochs, values):
            parts = spec.decoded(torch.from_numpy(found)).reshape(len(found), *spec.shape).unbind()
            tensors.update((id(members[at]), part) for at, part in zip(positions.tolist(), parts, strict=True))

    def computed(leaf: Any) -> Any:
        if not is_lazy(leaf):
            return own_parameter(leaf)
        return tensors[id(leaf)] if id(leaf) in tensors else leaf.computed()

    return pytree.tree_unflatten([computed(leaf) for leaf in leaves], structure)
