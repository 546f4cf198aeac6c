"""Rounds in compiled code: what is recorded is merged, scheduled, planned and run in one call of ``native_core``.

A minibatch that reads values runs many small rounds, in which the Python of :mod:`edbatch_tvm.recording.flush` takes
longer than the kernels. Values stay where they were computed: each round adds rows to the arenas of the minibatch, so
that later rounds read them in their places, and nothing is copied from round to round. Calls of one cell with equal
operands and attributes are one node. What compiled code does not know, :mod:`~edbatch_tvm.recording.flush` computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edbatch_tvm.recording.value_tables import present
from edbatch_tvm.runtime.report import Report
from edbatch_tvm.runtime.round_engine import Engine, engine_for
from edbatch_tvm.runtime.round_report import RoundReport

if TYPE_CHECKING:
    from edbatch_tvm.recording.lazy import LazyTensor
    from edbatch_tvm.recording.library import Library
    from edbatch_tvm.recording.recorder import Recorder

native: Any = None
"""``native_core``, while it is in use."""


class RoundValues:
    """The values that rounds in compiled code have computed; for :class:`~edbatch_tvm.recording.computed.Computed`.

    Attributes
    ----------
    first : int
        The first of them that has no other place.
    """

    def __init__(self, engine: Engine, first: int) -> None:
        self.engine = engine
        self.first = first
        self.end = first
        self.compiled = native.values(engine.compiled)
        self._tensors: dict[int, tuple[Any, torch.Tensor]] = {}

    def run(self, recorded: Recorder | list[bytes], library: Library, places: np.ndarray | None) -> bytes | None:
        """Run a round; what a report says of it, or None if nothing was done.

        Parameters
        ----------
        recorded : Recorder or list of bytes
            Calls; packed ones of elements that were recorded before.
        library : Library
        places : int64 array, optional
            Of a recorder, tables and rows of values that are not in arenas; else addresses and bytes of tensors from
            outside.
        """
        engine = self.engine
        assert engine.rule is not None
        loaded = engine.executor.kernels.loaded  # once: another thread may refresh it
        rule = engine.rule
        found = self.compiled.run(recorded, library.code.type_ids, places, loaded.types, *rule, True, engine.threads)
        if found is None:
            return None
        multiplies, shares, facts = found
        return facts if multiplies < 0 or engine.execute(self.compiled, multiplies, shares) else None

    def array(self, arena: int) -> np.ndarray:
        """The rows of an arena."""
        return np.asarray(self.compiled.arena(arena))[:, : self.engine.sizes[arena]]

    def tensor(self, value: int) -> torch.Tensor:
        """One value, flat: memory of its arena."""
        arena, row = self.compiled.place(value)
        owner = self.compiled.arena(arena)
        known = self._tensors.get(arena)
        if known is None or known[0] is not owner:
            known = self._tensors[arena] = owner, torch.from_numpy(self.array(arena))
        return known[1][row]

    def places(self, values: np.ndarray) -> np.ndarray:
        """Arenas and rows of values."""
        found = np.empty((2, len(values)), np.int64)
        self.compiled.find(np.ascontiguousarray(values, np.int64), found)
        return found

    def rows_of(self, values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Values that lie together, together: positions in `values`, and a copy of their rows."""
        arenas, rows = self.places(values)
        for arena in present(arenas):
            members = np.flatnonzero(arenas == arena)
            yield members, self.array(arena)[rows[members]]

    def table_of(self, values: list[int], size: int) -> np.ndarray | None:
        """A copy of the rows of values of one size; None if they are not all here."""
        rows = np.empty((len(values), size), self.engine.dtype)
        return rows if self.compiled.copy(values, rows) else None

    def extremes_of(self, asked: Sequence[tuple[Any, LazyTensor]]) -> tuple[list[int], np.ndarray] | None:
        """Values, and the places of the largest or smallest numbers of each; None for other questions."""
        places = np.empty(len(asked), np.int64)
        values = self.compiled.extremes(asked, places)
        return None if values is None else (values, places)

    def all_places(self) -> np.ndarray:
        """Those of all values from the first on."""
        return self.places(np.arange(self.first, self.end))


def compute_natively(recorder: Recorder) -> Report | None:
    """Compute everything that is recorded in one call; None if nothing was done, since that is a round for Python."""
    if native is None or not recorder.types or recorder.records is not None or recorder.tape is not None:
        return None
    engine = _engine_for(recorder.library, len(recorder.types))
    if engine is None:
        return None
    begin = perf_counter()
    computed = recorder.computed
    values = computed.rounds
    if values is None or values.engine is not engine:
        computed.keep()
        values = RoundValues(engine, recorder.done)
    earlier = computed.places() if computed.last is not values and recorder.done else None
    facts = values.run(recorder, recorder.library, earlier)
    if facts is None:
        return None
    values.end = recorder.recorded
    computed.rounds = values
    recorder.finish_round(values)
    return _report(engine, facts, begin)


def compute_records(recorder: Recorder) -> Report | None:
    """Compute the elements that were recorded before in one call; None if that is something for Python."""
    records = recorder.records
    if native is None or records is None or recorder.types or recorder.tape is not None:
        return None
    engine = _engine_for(recorder.library, records.calls)
    together = None if engine is None else records.together()
    if engine is None or together is None:
        return None
    begin = perf_counter()
    values = RoundValues(engine, 0)
    facts = values.run(together[0], recorder.library, together[1])
    if facts is None or not records.take_computed(values):
        return None
    recorder.records = None
    return _report(engine, facts, begin)


def _engine_for(library: Library, calls: int) -> Engine | None:
    """The engine for rounds of this many calls; None for rounds that Python computes."""
    model = library.code.model if library.code.is_current else None
    return None if model is None else engine_for(model, calls, native)


def _report(engine: Engine, facts: bytes, begin: float) -> Report:
    seconds = perf_counter() - begin
    assert engine.policy is not None
    return RoundReport(engine, engine.policy, facts, {"execute": seconds, "total": seconds})
