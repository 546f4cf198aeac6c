"""Small minibatches, which are merged, scheduled, planned and run in one call of compiled code.

For a few instances, the Python between the calls of :class:`~edbatch_tvm.runtime.model.Model` takes longer than the
kernels. What compiled code does not know, Python computes: rows from outside, attributes that are no integers, policies
that are functions, plans other than ``batch``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.c_extension import load_extension
from edbatch_tvm.find_native import find_native
from edbatch_tvm.graph import InstanceGraph, merge
from edbatch_tvm.memory import Plan
from edbatch_tvm.runtime.result import Result
from edbatch_tvm.runtime.round_engine import Engine, engine_for
from edbatch_tvm.runtime.round_report import RoundReport

if TYPE_CHECKING:
    from edbatch_tvm.runtime.model import Model

PLANS = "auto", "batch"
"""Memory plans that compiled code makes."""

MOST_INSTANCES, MOST_NODES = 16, 1024
"""Of a minibatch in one call. In larger ones the kernels take most of the time; and if they come again, Python has kept
their schedules and plans."""

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
    return find_native("run small minibatches")


class OneCall:
    """Runs minibatches of a model in one call, if that can be.

    Parameters
    ----------
    model : Model
    """

    def __init__(self, model: Model) -> None:
        self._cells = model.cells
        self._columns = [key for key, _, _ in model.cells.attribute_columns]
        self._type_ids = np.arange(len(model.cells), dtype=np.int16)

    def run(self, model: Model, instances: Sequence[InstanceGraph]) -> Result | None:
        """The result of a minibatch; None if nothing was done, since it is one for Python."""
        begin = perf_counter()
        if type(instances) not in (list, tuple) or len(instances) > MOST_INSTANCES or model.plan_name not in PLANS:
            return None
        cells, columns, nodes = self._cells, self._columns, 0
        arrays, first = [], []
        for graph in instances:
            # Errors, and instances of other processes, are for Python, too.
            if type(graph) is not InstanceGraph or graph.signature is not cells or not graph.checked:
                return None
            if len(graph.external_row) or len(graph.node_ptr) != 2:
                return None
            first.append(nodes)
            nodes += len(graph.node_type)
            if nodes > MOST_NODES:
                return None
            get = graph.attributes.get
            arrays.append((graph.node_type, graph.operand_ptr, graph.operand_value, *[get(key) for key in columns]))
        engine = self._engine(model, nodes) if nodes else None
        if engine is None:
            return None
        assert engine.rule is not None
        values = engine.native.values(engine.compiled)
        loaded = engine.executor.kernels.loaded  # once: another thread may refresh it
        found = values.run(tuple(arrays), self._type_ids, None, loaded.types, *engine.rule, False)
        if found is None:
            return None
        multiplies, facts = found
        if multiplies >= 0 and not engine.execute(values, multiplies):
            return None
        return OneCallResult(engine, instances, first, values, facts, perf_counter() - begin)

    def _engine(self, model: Model, nodes: int) -> Engine | None:
        native = native_core()
        return None if native is None else engine_for(model, nodes, native)


class OneCallResult(Result):
    """The result of a minibatch that was run in one call.

    The merged graph, its schedule and the plan are made again when they are asked for.

    Parameters
    ----------
    engine : Engine
    instances : sequence of InstanceGraph
    first : list of int
        The first node of each.
    values : object
        What has the arenas.
    facts : bytes
        What the report says.
    seconds : float
    """

    def __init__(
        self,
        engine: Engine,
        instances: Sequence[InstanceGraph],
        first: list[int],
        values: Any,
        facts: bytes,
        seconds: float,
    ) -> None:
        assert engine.policy is not None
        self._instances = list(instances)
        self._first = first
        self._signature = engine.signature
        self._storage = "float32"
        self._views = [np.asarray(values.arena(arena)) for arena in range(len(engine.sizes))]
        # After the views, which end first then: the next minibatch gets arenas that nothing looks at.
        self._values = values
        stages = {"build": 0.0, "schedule": 0.0, "plan": 0.0, "execute": seconds, "total": seconds}
        # No reference to the result: a cycle would keep its arenas until the garbage collector comes.
        self._merged = cache(partial(merge, self._instances))
        self.report = report = RoundReport(engine, engine.policy, facts, stages, self._merged)
        self._row = report.value_row

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
        return len(self._instances)

    def _outputs_of(self, instance: int) -> Any:
        graph, before = self._instances[instance], self._first[instance] * self._signature.stride
        found = [self._view(self._arena_in(graph, value), before + value) for value in graph.outputs.tolist()]
        return found[0] if graph.scalar_output[0] else found
