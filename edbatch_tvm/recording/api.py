"""``edbatch_tvm.autobatch``: batch a PyTorch model as it is."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from edbatch_tvm.errors import RecordingError
from edbatch_tvm.fork_lock import fork_lock
from edbatch_tvm.recording import functions as _functions  # noqa: F401  (fills a table)
from edbatch_tvm.recording.adopted import give_back
from edbatch_tvm.recording.copies import Carried, Copies
from edbatch_tvm.recording.driver import Driver
from edbatch_tvm.recording.flush import compute_batched, compute_eagerly, rows_of_values
from edbatch_tvm.recording.isolation import state
from edbatch_tvm.recording.lazy import LazyTensor, is_lazy
from edbatch_tvm.recording.library import Library, same_numbers
from edbatch_tvm.recording.named_cells import find_named_cells
from edbatch_tvm.recording.parameters import own_parameter
from edbatch_tvm.recording.recorder import Break, Recorder
from edbatch_tvm.recording.specs import TensorSpec
from edbatch_tvm.recording.torch_functions import replaced_functions
from edbatch_tvm.runtime import Model, Report

_FIRST_ELEMENTS = 4
"""Elements that run by the model's own code, at most, to find out what its cells are."""


def autobatch(model: torch.nn.Module, cells: Sequence[str], **options: Any) -> AutoBatched:
    """Batch an unchanged PyTorch model, for inference.

    Parameters
    ----------
    model : torch.nn.Module
        Its ``forward`` is written for one element and may use recursion, loops and branches.
    cells : sequence of str
        Names of submodules and methods (``"leaf"``, ``"node_forward"``, ``"encoder.cell"``) that do the work: tensors
        in, tensors out, the same code for every call of one kind. Calls of them are recorded and run in batches.
        Integers among their arguments become attributes, tensors that were stacked variadic operands.
    **options
        For :func:`edbatch_tvm.compile`: ``target``, ``policy``, ``plan``.

    Returns
    -------
    AutoBatched

    Raises
    ------
    RecordingError
        If a name is neither a submodule nor a method.
    EnvironmentMismatch
        If torch or greenlet is not installed.

    Examples
    --------
    >>> fast = eb.autobatch(model, cells=["leaf", "node_forward"])        # doctest: +SKIP
    >>> with torch.no_grad():
    ...     scores = fast(trees)                                          # doctest: +SKIP
    """
    return AutoBatched(model, cells, options)


class AutoBatched:
    """A PyTorch model that runs minibatches; made by :func:`autobatch`.

    Called with a list, it runs the model's ``forward`` on every element and returns the results in order; called with
    anything else, on that one element. Between cells, what ``forward`` computes with tensors is recorded too; where it
    reads a value, everything recorded so far runs, for all elements at once, and they go on together.

    The first call runs a few elements by the model's own code to find out what the cells are, then compiles them.
    Weights that changed since the last call are taken over.

    Attributes
    ----------
    model : torch.nn.Module
    reports : list of Report
        One for every time that batches were run during the last call.
    """

    def __init__(self, model: torch.nn.Module, cells: Sequence[str], options: dict[str, Any]) -> None:
        if not isinstance(model, torch.nn.Module):
            raise RecordingError(f"a model that is a {type(model).__name__}", "a torch.nn.Module")
        self.model = model
        self.reports: list[Report] = []
        self.breaks: list[Break] = []
        self._cells = list(cells) if not isinstance(cells, str) else cells
        self._options = options
        self._sites = find_named_cells(model, self._cells)
        self._library = Library(model, options, self._sites.values())
        self._state = _state_of(model)
        self._buffers = _buffers_of(model)
        self._carried = Carried()
        self._lock = fork_lock()
        self._first = fork_lock()
        Driver(lambda: None)  # finds out now that greenlet is missing

    def __repr__(self) -> str:
        return f"AutoBatched({type(self.model).__name__}, cells={self._cells!r})"

    @property
    def compiled(self) -> Model | None:
        """The compiled model; None before the first call."""
        return self._library.model

    @property
    def batches(self) -> int:
        """Number of batches that the last call ran."""
        return sum(report.batches for report in self.reports)

    def __call__(self, elements: Any) -> Any:
        """The model on every element of a list, or on one element."""
        if type(elements) is list:
            return self.map(elements)
        return self._run([partial(_forward, arguments=(elements,))])[0]

    def map(self, elements: Iterable[Any]) -> list[Any]:
        """The model on every element, in order.

        Parameters
        ----------
        elements : iterable
            An element that is a tuple gives the arguments of ``forward`` if that takes several.

        Raises
        ------
        RecordingError
            If gradients would be needed, the model is in training mode, or what it does cannot be recorded.
        Exception
            What ``forward`` raises; a note says for which element.
        """
        several = _takes_several(self.model)
        return self._run(
            [
                partial(_forward, arguments=element if several and type(element) is tuple else (element,))
                for element in elements
            ]
        )

    # A call -----------------------------------------------------------------------------------------------------

    def _run(self, functions: list[Callable[[torch.nn.Module], Any]]) -> list[Any]:
        self._check_inference()
        if self._library.model is None:
            with self._first:  # one thread finds out what the cells are
                return self._run_now(functions)
        return self._run_now(functions)

    def _run_now(self, functions: list[Callable[[torch.nn.Module], Any]]) -> list[Any]:
        with self._lock:
            self._take_over_changes()
        self.reports, self.breaks = [], []
        first = [] if self._library.model is not None else self._first_elements(functions)
        return [*first, *self._minibatch(functions[len(first) :], self._compute_batched)]

    def _first_elements(self, functions: list[Callable[[torch.nn.Module], Any]]) -> list[Any]:
        """Run elements by the model's own code until one of them brings no new cell."""
        results: list[Any] = []
        for function in functions[:_FIRST_ELEMENTS]:
            known = len(self._library.cells)
            results += self._minibatch([function], compute_eagerly)
            if known and len(self._library.cells) == known:
                break
        if self._library.cells:
            self._library.compiled()
        return results

    def _minibatch(
        self, functions: list[Callable[[torch.nn.Module], Any]], compute: Callable[[Recorder], Any]
    ) -> list[Any]:
        driver = Driver(lambda: compute(recorder), lambda: copies.after_round())
        recorder = Recorder(self._library, driver.wait, lambda: compute(recorder))
        self._library.state = state()
        copies = Copies(self.model, self._sites, recorder, len(functions), self._carried, driver.wait)

        def run(number: int, function: Callable[[torch.nn.Module], Any], model: torch.nn.Module) -> Any:
            element = copies.elements[number]
            element.started = True
            try:
                return function(model)
            finally:
                element.ended = True

        with replaced_functions(), collections_later() if self._library.is_compiled else nullcontext():
            try:
                models = [copies.of(number) for number in range(len(functions))]
                tasks = zip(range(len(functions)), functions, models, strict=True)
                results = driver.run([partial(run, *task) for task in tasks])
                compute(recorder)
                copies.check(driver.rounds)
            finally:
                give_back(recorder)
            copies.leave(lambda value: _computed(value, recorder))
            results = _computed(results, recorder)
            give_back(recorder)  # what views kept
        recorder.finished = True
        self.breaks += recorder.breaks
        return results

    def _compute_batched(self, recorder: Recorder) -> None:
        result = compute_batched(recorder)
        if result is not None:
            self.reports.append(result.report)

    def _check_inference(self) -> None:
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.model.parameters()):
            raise RecordingError(
                f"{type(self.model).__name__} is called where gradients are recorded",
                "inference",
                "with torch.no_grad(): ...",
            )

    def refresh(self) -> None:
        """Take over everything that has changed since the last call; every call does that by itself."""
        with self._lock:
            self._take_over_changes()

    def _take_over_changes(self) -> None:
        state = _state_of(self.model)
        known = self._state
        if state != known or not all(same_numbers(buffer, seen) for buffer, seen in self._buffers):
            if [one[0] for one in state] == [one[0] for one in known] and state != known:
                self._library.refresh()
            else:
                self._sites = find_named_cells(self.model, self._cells)
                self._library = Library(self.model, self._options, self._sites.values())
            self._state = state
            self._buffers = _buffers_of(self.model)
        if self._library.weights_changed():
            self._library.refresh()
        for site in self._sites.values():
            for attribute, value in list(site.constants.items()):
                now = attribute.value(site.owner) if site.owner is not None else value
                if now is not value and (type(now) is not type(value) or now != value):
                    site.read(attribute)


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


def _forward(model: torch.nn.Module, arguments: tuple[Any, ...]) -> Any:
    return model(*arguments)


def _takes_several(model: torch.nn.Module) -> bool:
    code = model.forward.__code__ if hasattr(model.forward, "__code__") else None
    return code is not None and (code.co_argcount > 2 or bool(code.co_flags & 0x04))


def _state_of(model: torch.nn.Module) -> list[tuple[Any, Any]]:
    """What cells depend on: first what they are compiled for, then where weights lie and how often they changed."""
    parameters = [(id(one), (one.data_ptr(), _version(one))) for one in model.parameters()]
    buffers = [((id(one), one.data_ptr(), _version(one)), None) for one in model.buffers()]
    modules = [((id(one), one.training), None) for one in model.modules()]
    return [*parameters, *buffers, *modules]


def _buffers_of(model: torch.nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The buffers of a model, which are constants of cells, and copies of them."""
    return [(buffer, buffer.detach().clone()) for buffer in model.buffers()]


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


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
