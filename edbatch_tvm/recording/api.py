"""``edbatch_tvm.autobatch``: batch a PyTorch model as it is."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial, wraps
from time import perf_counter
from typing import Any

import torch

from edbatch_tvm.compiler.progress import Progress
from edbatch_tvm.errors import BreakWarning, RecordingError
from edbatch_tvm.fork_lock import fork_lock
from edbatch_tvm.recording.breaks import Break
from edbatch_tvm.recording.choosing import Observer, chosen_line
from edbatch_tvm.recording.compiled_or_pytorch import PyTorchReport
from edbatch_tvm.recording.compiled_states import CompiledStates
from edbatch_tvm.recording.driver import Driver
from edbatch_tvm.recording.eager_comparison import EagerComparison
from edbatch_tvm.recording.elements import minibatch_of, takes_several
from edbatch_tvm.recording.failures import name_element
from edbatch_tvm.recording.flush import compute_batched, compute_eagerly
from edbatch_tvm.recording.isolation import state
from edbatch_tvm.recording.library import Library
from edbatch_tvm.recording.minibatch import Function, collections_later, run_minibatch
from edbatch_tvm.recording.model_state import check_no_transform, is_uninitialised
from edbatch_tvm.recording.module import StandIn
from edbatch_tvm.recording.named_cells import check_entry, listed, warn_of_uncalled
from edbatch_tvm.recording.options import check_options
from edbatch_tvm.recording.recorded_elements import Content, Record, record_content
from edbatch_tvm.recording.recorder import Recorder
from edbatch_tvm.recording.records_alone import run_records
from edbatch_tvm.recording.seen_state import SeenState
from edbatch_tvm.recording.set_attributes import Carried
from edbatch_tvm.recording.site import Site
from edbatch_tvm.recording.source_locations import users_place
from edbatch_tvm.recording.uncompiled import original, uncompiled
from edbatch_tvm.runtime import Model, Report

_log = logging.getLogger(__name__)

_OF_THE_PROCESS = frozenset(
    {
        *("reports", "breaks", "_lock", "_first", "_states", "_warned", "_told"),
        *("_touched", "_followed", "_seen", "_comparison", "_computing"),
    }
)
"""Attributes that are made anew for copies."""

_FIRST_ELEMENTS = 4
"""Elements that run by the model's own code, at most, to find out what its cells are."""


def autobatch(
    model: torch.nn.Module,
    cells: Sequence[str | Callable[..., Any]] | None = None,
    *,
    entry: str = "forward",
    **options: Any,
) -> AutoBatched:
    """Batch an unchanged PyTorch model, for inference and training.

    Where gradients are recorded and a parameter requires one, results have a backward pass that runs in batches, too.

    Parameters
    ----------
    model : torch.nn.Module
        Its ``forward`` is written for one element and may use recursion, loops and branches.
    cells : sequence of str, modules or functions, optional
        What does the work: tensors in, tensors out, the same code for every call of one kind. Submodules and methods
        by name (``"leaf"``, ``"node_forward"``, ``"encoder.cell"``) or themselves, and functions. Calls of them are
        recorded and run in batches. Integers among their arguments become attributes, tensors that were stacked
        variadic operands. Left out, they are chosen by what the first elements call, and printed.
    entry : str
        The method that runs for each element, if it is not ``forward``.
    **options
        ``fallback``: ``"auto"`` leaves cells to PyTorch that are measured to be slower compiled, in the first
        calls, and the whole model if it is; ``"never"``, the default, leaves none; a list of names leaves those.
        Others are for
        :func:`edbatch_tvm.compile`: ``target``, ``policy``, ``plan``.

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
    >>> loss = cross_entropy(torch.stack(fast(trees)), labels)            # doctest: +SKIP
    >>> loss.backward()                                                   # doctest: +SKIP
    """
    return AutoBatched(model, cells, entry, options)


class AutoBatched(StandIn):
    """A PyTorch model that runs minibatches; made by :func:`autobatch`.

    Called with a list, it runs the model's ``forward`` on every element and returns the results in order; called with
    anything else, on that one element. Between cells, what ``forward`` computes with tensors is recorded too; where it
    reads a value, everything recorded so far runs, for all elements at once, and they go on together.

    The first call runs a few elements by the model's own code to find out what the cells are, then compiles them.
    Weights that changed since the last call are taken over.

    It is a module with the model's parameters, buffers and submodules under the model's names. The model's methods are
    methods of it that run minibatches, too: ``fast.decode(sentences)``. Copies and pickled ones compile again when they
    are first called.

    Attributes
    ----------
    model : torch.nn.Module
    reports : list of Report or PyTorchReport
        One for every time that batches were run during the last call, by compiled code or by PyTorch.
    breaks : list of Break
        What PyTorch ran during the last call because it could not be recorded.
    """

    reports: list[Report | PyTorchReport]
    breaks: list[Break]
    _cells: list[Any] | None
    _entry: str
    _options: dict[str, Any]
    _lock: Any
    _first: Any
    _states: CompiledStates
    _warned: bool
    _told: bool
    _touched: set[int]
    _followed: set[int]
    _seen: SeenState | None
    _comparison: EagerComparison
    _computing: float

    def __init__(
        self,
        model: torch.nn.Module,
        cells: Sequence[str | Callable[..., Any]] | None,
        entry: str,
        options: dict[str, Any],
    ) -> None:
        if not isinstance(model, torch.nn.Module):
            raise RecordingError(f"a model that is a {type(model).__name__}", "a torch.nn.Module")
        if isinstance(model, torch.jit.ScriptModule):
            raise RecordingError("a scripted model", "the module that it was made of, whose code is Python")
        model = original(model)
        super().__init__(model)
        check_entry(model, entry)
        check_options(options)
        self._cells = None if cells is None else listed(cells)
        self._entry = entry
        self._options = options
        self._prepare()
        Driver(lambda: None)  # finds out now that greenlet is missing

    def _prepare(self) -> None:
        """Begin as one that has never been called."""
        self.reports, self.breaks = [], []
        self._lock, self._first = fork_lock(), fork_lock()
        self._touched, self._followed, self._seen = set(), set(), None
        self._warned = self._told = False
        self._comparison = EagerComparison(self._options.get("fallback") == "auto")
        self._computing = 0.0
        self._states = CompiledStates(self.model, self._entry, self._options, self._cells)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name not in _OF_THE_PROCESS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._prepare()

    def __repr__(self) -> str:
        return f"AutoBatched({type(self.model).__name__}, cells={self.cells!r})"

    @property
    def _sites(self) -> dict[str, Site]:
        return self._states.now.sites

    @property
    def _library(self) -> Library:
        return self._states.now.library

    @property
    def _carried(self) -> Carried:
        return self._states.carried

    @property
    def cells(self) -> list[str]:
        """The names of the cells."""
        return list(self._sites)

    @property
    def compiled(self) -> Model | None:
        """The compiled model; None before the first call."""
        return self._library.code.model

    @property
    def left_to_pytorch(self) -> dict[str, str]:
        """The cells that PyTorch computes, and why; the model's class, if PyTorch runs all of it."""
        if self._library.slower:
            return {type(self.model).__name__: self._library.slower}
        return {self._library.cells[number].name: why for number, why in self._library.fallback.left.items()}

    @property
    def batches(self) -> int:
        """Number of batches that the last call ran."""
        return sum(report.batches for report in self.reports)

    def forward(self, elements: Any, **shared: Any) -> Any:
        """The model on every element of a minibatch, or on one element.

        Parameters
        ----------
        elements : object
            A list, a sequence like one or an iterator is a minibatch; a tuple, a string, a tensor, a mapping or
            anything else is one element. A tuple gives the arguments of ``forward`` if that needs several.
        **shared
            Further arguments of ``forward``, the same for all elements.

        Returns
        -------
        object
            A list of results, in order; the result, for one element.

        Raises
        ------
        RecordingError
            If what the model does cannot be recorded.
        Exception
            What ``forward`` raises; a note says for which element.
        """
        return self._call(self._entry, elements, shared)

    def map(self, elements: Iterable[Any], **shared: Any) -> list[Any]:
        """The model on every element of an iterable, whatever its class."""
        results: list[Any] = self._call(self._entry, list(elements), shared)
        return results

    @uncompiled
    def record(self, element: Any, **shared: Any) -> Record:
        """Record an element once, to be used in its place: ``fast([record, element])``.

        Its ``forward`` does not run again, as long as the model is what it was. Weights of cells may change, and
        parameters that are given to cells, whole or by rows. If anything else has changed that ``forward`` may read
        (other parameters, buffers, attributes, the mode), the element is recorded again at its next use; one that has
        changed itself needs a new record.

        Parameters
        ----------
        element : object
            As for a call; a tuple gives the arguments of ``forward`` if that needs several.
        **shared
            Further arguments of ``forward``.

        Returns
        -------
        Record

        Raises
        ------
        RecordingError
            If ``forward`` reads a value, sets attributes or draws random numbers.
        """
        check_no_transform()
        several = takes_several(getattr(self.model, self._entry), shared)
        one = Record(self, element, _function_of(element, self._entry, several, shared))
        with self._first:
            with self._lock:
                self._states.take_over_changes()
            self._contents([one])
        return one

    def _method(self, name: str) -> Callable[..., Any]:
        @wraps(getattr(self.model, name))
        def method(elements: Any, **shared: Any) -> Any:
            return self._call(name, elements, shared)

        return method

    @uncompiled
    def _call(self, entry: str, elements: Any, shared: dict[str, Any]) -> Any:
        several = takes_several(getattr(self.model, entry), shared)
        minibatch = minibatch_of(elements)
        functions: list[Any] = [
            one if type(one) is Record else _function_of(one, entry, several, shared)
            for one in (minibatch if minibatch is not None else [elements])
        ]
        results = self._run(functions, entry)
        return results if minibatch is not None else results[0]

    # A call -----------------------------------------------------------------------------------------------------

    def _run(self, functions: list[Any], entry: str) -> list[Any]:
        check_no_transform()
        if self._library.code.model is None:
            with self._first:  # one thread finds out what the cells are
                return self._run_now(functions, entry)
        return self._run_now(functions, entry)

    def _run_now(self, functions: list[Any], entry: str) -> list[Any]:
        with self._lock:
            self._states.take_over_changes(functions)
        self.reports, self.breaks = [], []
        self._computing = 0.0
        begin = perf_counter()
        if is_uninitialised(self.model):
            why = "lazy modules wait for a call that gives their parameters a shape"
            self.breaks.append(Break(type(self.model).__name__, "the whole model", why))
            return self._one_by_one([one.function if type(one) is Record else one for one in functions], 0)
        records = [one for one in functions if type(one) is Record]
        contents = self._contents(records) if records else []
        alone = len(records) == len(functions)
        plain = [] if alone else [one for one in functions if type(one) is not Record] if records else functions
        results = self._choose(plain, entry) if self._cells is None else []
        if self._library.code.model is None and not self._carried.in_order:
            results += self._first_elements(plain[len(results) :], len(results))
        if self._carried.in_order:
            results += self._in_order(plain[len(results) :], len(results))
        elif self._library.slower:
            results += self._one_by_one(plain[len(results) :], len(results))
        recorded: list[Any] = []
        ran_alone = self._library.slower or (self._carried.in_order and functions)
        if contents or not ran_alone:  # of no elements, too: it lets go of the minibatch before
            later, recorded = self._minibatch(plain[len(results) :], self._compute_batched, len(results), contents)
            results += later
        if functions and not self._warned:
            self._warned = True
            warn_of_uncalled(self.model, self._sites, self._library)
        if not records:
            if not self._comparison.settled and not self._carried.in_order and not self._library.training:
                seconds = perf_counter() - begin
                library = self._library
                known = len(library.cells) + library.fallback.measurements
                library.slower = self._comparison.note(self.model, plain, known, seconds, self._computing)
                if library.slower:
                    _log.warning("%s is left to PyTorch: %s", type(self.model).__name__, library.slower)
            return results
        if alone:
            return recorded
        rest, others = iter(results), iter(recorded)
        return [next(others) if type(one) is Record else next(rest) for one in functions]

    def _contents(self, records: list[Record]) -> list[Content]:
        """What records hold, recorded again where the model has changed."""
        if is_uninitialised(self.model):
            raise RecordingError(
                "a record of a model with lazy modules that no call has initialised",
                "an initialised model",
                "call the model on an element first",
            )
        if self._cells is None:
            self._choose([records[0].function], self._entry)
        self._check_seen()
        seen, library = self._seen, self._library
        current = [
            content
            for one in records
            if (content := one.content) is not None
            and content.state is seen
            and content.library is library
            and one.owner is self
        ]
        if len(current) == len(records):
            return current
        contents: list[Content] = []
        for record in records:
            if record.owner is not self:
                raise RecordingError("a record of another model", "a record that this one has made")
            content = record.content
            if content is None or content.state is not self._seen or content.library is not self._library:
                content = record.content = self._recorded(record.function)
            contents.append(content)
            if contents[0].state is not self._seen:
                # A parameter that was looked up for the first time makes those before it stale.
                return self._contents(records)
        refusals = library.code.refusals
        if library.cells and library.compiled() is None and library.code.refusals > refusals:
            # A cell cannot be compiled, so none of its calls is recorded any more.
            self._seen = None
            return self._contents(records)
        return contents

    def _recorded(self, function: Function) -> Content:
        if self._library.code.model is None:
            self._first_elements([function], 0)
        known = self._states.now
        known.library.state = state()
        content = record_content(known.library, known.functions, self.model, known.sites, function)
        if not (content.touched <= self._touched and content.followed <= self._followed):
            self._touched |= content.touched
            self._followed |= content.followed
            self._seen = None
            self._check_seen()
        content.state = self._seen
        return content

    def _check_seen(self) -> None:
        if self._seen is None or not self._seen.holds(self.model):
            followed = self._library.code.weights() | self._followed
            self._seen = SeenState(self.model, followed - self._touched)

    def _choose(self, functions: list[Function], entry: str) -> list[Any]:
        """Choose cells by what the first elements call; their results."""
        observer = Observer(self.model, entry)
        results: list[Any] = []
        try:
            for function in functions[:_FIRST_ELEMENTS]:
                with observer.watching():
                    results.append(function(self.model))
        except Exception as error:
            name_element(error, len(results))
            raise
        if results:
            self._cells = observer.cells()
            print(chosen_line(self.model, self._cells, len(results)), file=sys.stderr)
            self._states.start(self._states.parts(functions), self._cells)
            self._warned = True
        return results

    def _first_elements(self, functions: list[Function], first: int) -> list[Any]:
        """Run elements by the model's own code until one of them brings no new cell."""
        results: list[Any] = []
        with Progress(), collections_later():
            for number, function in enumerate(functions[:_FIRST_ELEMENTS]):
                known = len(self._library.cells)
                results += self._minibatch([function], compute_eagerly, number + first)[0]
                if self._carried.in_order:
                    return results
                if known and len(self._library.cells) == known:
                    break
            if self._library.cells:
                self._library.compiled()
        return results

    def _in_order(self, functions: list[Function], first: int) -> list[Any]:
        """Run elements by the model's own code, one after the other: what they do depends on that."""
        name = type(self.model).__name__
        self.breaks.append(Break(name, "the whole model", self._carried.in_order))
        if not self._told:
            self._told = True
            warnings.warn_explicit(
                f"{name} is not batched, PyTorch runs its elements one after the other: {self._carried.in_order}",
                BreakWarning,
                *users_place(),
            )
        return self._one_by_one(functions, first)

    def _one_by_one(self, functions: list[Function], first: int) -> list[Any]:
        """Run elements by the model's own code."""
        results: list[Any] = []
        try:
            for function in functions:
                results.append(function(self.model))  # noqa: PERF401
        except Exception as error:
            name_element(error, first + len(results))
            raise
        return results

    def _minibatch(
        self,
        functions: list[Function],
        compute: Callable[[Recorder], Any],
        first: int,
        contents: Sequence[Content] = (),
    ) -> tuple[list[Any], list[Any]]:
        now = self._states.now
        if contents and not functions and now.library.training:
            alone = run_records(now.library, contents)
            if alone is not None:
                self.reports.append(alone[1])
                return [], alone[0]
        results, recorded, breaks = run_minibatch(self.model, now, self._carried, functions, compute, first, contents)
        self.breaks += breaks
        return results, recorded

    def _compute_batched(self, recorder: Recorder) -> None:
        begin = perf_counter()
        if recorder.tape is not None:  # who computes a cell is settled where nothing else counts
            result = compute_batched(recorder)
            self.reports += [] if result is None else [result.report]
        else:
            self.reports += self._library.fallback.compute(recorder)
        self._computing += perf_counter() - begin

    def refresh(self) -> None:
        """Take over everything that has changed since the last call; every call does that by itself.

        A model whose elements run one after the other, since what they do depends on that, is batched again.
        """
        self._carried.in_order = ""
        with self._lock:
            self._states.take_over_changes()


def _function_of(element: Any, entry: str, several: bool, named: dict[str, Any]) -> Function:
    """What runs the model on an element; with `several`, a tuple gives its arguments."""
    arguments = element if several and type(element) is tuple else (element,)
    return partial(_run_entry, entry=entry, arguments=arguments, named=named)


def _run_entry(model: torch.nn.Module, entry: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    function = model if entry == "forward" else getattr(model, entry)
    return function(*arguments, **named)
