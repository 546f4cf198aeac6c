"""Minibatches that are merged, scheduled, planned and run in one call of compiled code.

For a few instances, the Python between the calls of :class:`~edbatch_tvm.runtime.model.Model` takes longer than the
kernels; for many, an eighth of the time of small cells. What compiled code does not know, Python computes: rows from
outside, attributes that are no integers, policies that are functions, and plans other than ``batch``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from operator import attrgetter
from pathlib import Path
from struct import unpack_from
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.c_extension import load_extension
from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.find_native import find_native
from edbatch_tvm.graph import InstanceGraph, merge
from edbatch_tvm.graph.array_addresses import INSTANCES
from edbatch_tvm.memory import Plan
from edbatch_tvm.runtime.result import Result
from edbatch_tvm.runtime.round_engine import Engine, engine_for
from edbatch_tvm.runtime.round_report import RoundReport, stages_of

if TYPE_CHECKING:
    from edbatch_tvm.runtime.model import Model

PLANS = "auto", "batch"
"""Memory plans that compiled code makes."""

MOST_NODES = 32768
"""Of a minibatch in one call: of larger ones the host's part is small, and their working memory is not kept."""

_MERGE_ROW = attrgetter("merge_row")
_INTEGER, _INTEGER_BYTES = "q", 8

_SOURCES = Path(__file__).resolve().parents[1] / "recording" / "native_core"


def load() -> Any:
    """The compiled code, compiled if this machine has none yet.

    Raises
    ------
    ImportError, OSError
        If there is no compiler for it.
    """
    return load_extension("edbatch_recording_core", _SOURCES, "recording")


def native_core() -> Any:
    """The compiled code; None where it cannot be had."""
    return find_native("run minibatches in one call")


class OneCall:
    """Runs minibatches of a model in one call, if that can be.

    Parameters
    ----------
    model : Model
    """

    def __init__(self, model: Model) -> None:
        self._cells = model.cells
        self._type_ids = np.arange(len(model.cells), dtype=np.int16)

    def run(self, model: Model, instances: Sequence[InstanceGraph]) -> Result | None:
        """The result of a minibatch; None if nothing was done, since it is one for Python."""
        begin = perf_counter()
        if type(instances) not in (list, tuple) or not instances or model.plan_name not in PLANS:
            return None
        instances = list(instances)  # the caller's list may change
        native = native_core()
        rows = None if native is None else self._rows(instances)
        if rows is None:
            return None
        nodes = native.nodes_of(rows)
        engine = engine_for(model, nodes, native) if nodes <= MOST_NODES else None
        if engine is None:
            return None
        assert engine.rule is not None
        values = native.values(engine.compiled)
        loaded = engine.executor.kernels.loaded  # once: another thread may refresh it
        found = values.run(rows, self._type_ids, None, loaded.types, *engine.rule, id(self._cells), engine.threads)
        if found is None:
            return None
        multiplies, shares, facts = found
        if multiplies >= 0 and not engine.execute(values, multiplies, shares):
            return None
        return OneCallResult(engine, instances, rows, values, facts, perf_counter() - begin)

    def _rows(self, instances: list[InstanceGraph]) -> tuple[bytes, ...] | None:
        """Where the arrays of the instances lie; None where that is for Python, as errors are."""
        try:
            rows = tuple(map(_MERGE_ROW, instances))
        except AttributeError:
            return None
        if all(rows):
            return rows
        for graph in instances:
            if type(graph) is not InstanceGraph or graph.signature is not self._cells or not graph.checked:
                return None
            row = graph.address_row() if graph.merge_row is not None or not graph.external_data else None
            if row is None:
                return None
            graph.merge_row = row
        return tuple(map(_MERGE_ROW, instances))


class OneCallResult(Result):
    """The result of a minibatch that was run in one call.

    The merged graph, its schedule and the plan are made again when they are asked for.

    Parameters
    ----------
    engine : Engine
    instances : list of InstanceGraph
    rows : tuple of bytes
        Where their arrays lie.
    values : object
        What has the arenas.
    facts : bytes
        What the report says.
    seconds : float
    """

    def __init__(
        self,
        engine: Engine,
        instances: list[InstanceGraph],
        rows: tuple[bytes, ...],
        values: Any,
        facts: bytes,
        seconds: float,
    ) -> None:
        # What few ask for is made when it is asked for: after the kernels, Python's own code is in no cache any more.
        self._instances = instances
        self._rows = rows
        self._engine = engine
        self._policy = engine.policy
        self._facts = facts
        self._seconds = seconds
        self._signature = engine.signature
        self._storage = "float32"
        self._arenas: list[np.ndarray] | None = None
        # After the views, which end first then: the next minibatch gets arenas that nothing looks at.
        self._values = values

    @property
    def _views(self) -> list[np.ndarray]:  # type: ignore[override]
        """The arenas."""
        if self._arenas is None:
            self._arenas = [np.asarray(self._values.arena(arena)) for arena in range(len(self._engine.sizes))]
        return self._arenas

    @cached_property
    def _merged(self) -> Callable[[], InstanceGraph]:
        # No reference to the result: a cycle would keep its arenas until the garbage collector comes.
        return cache(partial(merge, self._instances))

    @cached_property
    def report(self) -> RoundReport:  # type: ignore[override]
        """What the minibatch took."""
        assert self._policy is not None
        stages = stages_of(self._facts)
        stages["execute"] = self._seconds - sum(stages.values())
        stages["total"] = self._seconds
        return RoundReport(self._engine, self._policy, self._facts, stages, self._merged)

    @cached_property
    def _row(self) -> np.ndarray:
        return self.report.value_row

    @property
    def graph(self) -> InstanceGraph:  # type: ignore[override]
        """The minibatch."""
        return self._merged()

    @property
    def plan(self) -> Plan:  # type: ignore[override]
        """Where its values lie."""
        return self.report.plan

    @property
    def schedule(self) -> Schedule:  # type: ignore[override]
        """Its batches."""
        return self.plan.schedule

    def __len__(self) -> int:
        return self._length

    @cached_property
    def _length(self) -> int:
        return sum(unpack_from(_INTEGER, row, _INTEGER_BYTES * INSTANCES)[0] for row in self._rows)

    def _declared(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        outputs, pointer, scalar, types = self._engine.native.outputs_of(self._rows, self._signature.stride)
        return (
            np.frombuffer(outputs, np.int32),
            np.frombuffer(pointer, np.int32),
            np.frombuffer(scalar, np.bool_),
            np.frombuffer(types, np.int16),
        )
