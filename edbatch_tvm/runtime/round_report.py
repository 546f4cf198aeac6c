"""Reports of graphs that were run in one call of compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edbatch_tvm.batching import ScheduleInfo, lower_bound
from edbatch_tvm.batching.fsm import FsmPolicy
from edbatch_tvm.batching.policy import Policy
from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.find_native import backend_label
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import Plan, plan_memory
from edbatch_tvm.native.cell_tables import BYTES, COUNTS, LOOKUPS
from edbatch_tvm.runtime.report import Report

if TYPE_CHECKING:
    from edbatch_tvm.runtime.round_engine import Engine

_NUMBERS, _PLAN, _STAGES, _KERNELS = 18, 6, 14, 17
"""Length of the numbers of a report, and where they are: those of the plan, nanoseconds of STAGES, kernels that ran."""

STAGES = "build", "schedule", "plan"
"""What comes before the kernels."""


def stages_of(facts: bytes) -> dict[str, float]:
    """The seconds of each of :data:`STAGES`."""
    return dict(zip(STAGES, (1e-9 * np.frombuffer(facts, np.int64, len(STAGES), 8 * _STAGES)).tolist(), strict=True))


class RoundReport(Report):
    """What one round did; graph, schedule and plan are made when they are asked for.

    Without `make_graph`, the numbers that the graph reads are not kept: its external rows are zeros, and it has no
    attributes.
    """

    _engine: Engine
    _policy: Policy
    _facts: bytes
    _make_graph: Callable[[], InstanceGraph] | None

    def __init__(
        self,
        engine: Engine,
        policy: Policy,
        facts: bytes,
        seconds: dict[str, float],
        make_graph: Callable[[], InstanceGraph] | None = None,
    ) -> None:
        self.__dict__.update(_engine=engine, _policy=policy, _facts=facts, seconds=seconds, _make_graph=make_graph)
        self.__dict__.update(paths=engine.executor.paths, stored=engine.executor.kernels.stored, products={})

    @cached_property
    def _numbers(self) -> list[int]:
        numbers: list[int] = np.frombuffer(self._facts, np.int64, _NUMBERS).tolist()
        return numbers

    @property
    def calls(self) -> int:
        """Calls of cells that the nodes stand for."""
        return self._numbers[0]

    @property
    def batches(self) -> int:
        """Number of batches."""
        return self._numbers[4]

    @property
    def value_row(self) -> np.ndarray:
        """The row of each value."""
        return np.frombuffer(self._facts, np.int32, self._numbers[1] * self._engine.signature.stride, 8 * _NUMBERS)

    @cached_property
    def _of_schedule(self) -> list[np.ndarray]:
        """Order, beginnings and types of the batches."""
        _, nodes, _, _, batches = self._numbers[:5]
        return self._arrays(0, (nodes, np.int32), (batches + 1, np.int32), (batches, np.int16))

    def _arrays(self, after: int, *forms: tuple[int, Any]) -> list[np.ndarray]:
        """Arrays that lie `after` bytes behind the rows of values."""
        arrays, at = [], 8 * _NUMBERS + self.value_row.nbytes + after
        for count, dtype in forms:
            arrays.append(np.frombuffer(self._facts, dtype, count, at).copy())
            at += arrays[-1].nbytes
        return arrays

    @cached_property
    def graph(self) -> InstanceGraph:
        """The graph; see the class."""
        if self._make_graph is not None:
            return self._make_graph()
        _, nodes, edges, others, _ = self._numbers[:5]
        operand_ptr, operand_value, row, arena, node_type = self._arrays(
            sum(array.nbytes for array in self._of_schedule),
            *((nodes + 1, np.int32), (edges, np.int32), (others, np.int32), (others, np.int32), (nodes, np.int16)),
        )
        signature = self._engine.signature
        external: dict[str, Any] = {}
        if len(row) > 1:
            specs = signature.value_specs
            counts = [int(row[1:][arena[1:] == number].max(initial=0)) for number in range(len(specs))]
            external["external_spec"] = arena[1:].astype(np.int16)
            external["external_row"] = row[1:] - 1
            external["external_data"] = tuple(
                np.zeros((count, *spec.shape), spec.dtype) for count, spec in zip(counts, specs, strict=True)
            )
        graph = InstanceGraph(node_type, operand_ptr, operand_value, signature, **external)
        graph.checked = True
        return graph

    @cached_property
    def plan(self) -> Plan:
        """The plan of the schedule."""
        schedule = Schedule.for_graph(self.graph, *self._of_schedule)
        schedule.checked = True
        return plan_memory(schedule, self.graph, "batch")

    @cached_property
    def schedule(self) -> ScheduleInfo:
        """How the schedule was found."""
        policy, states = self._policy, 0
        name = policy.name
        if isinstance(policy, FsmPolicy):
            name, states = f"{name}-{policy.encoding}", len(policy.table)
        _, nodes, _, _, batches, misses = self._numbers[:6]
        bound, label = (lambda: lower_bound(self.graph)), backend_label("schedule")
        return ScheduleInfo(name, batches, nodes, batches, misses, states, 0.0, label, False, bound)

    @cached_property
    def kernel_calls(self) -> int:
        """Kernels that ran."""
        return self._numbers[_KERNELS]

    @property
    def operands(self) -> dict[str, int]:
        """Operands that are contiguous, broadcast, indexed."""
        counts = self._numbers[_PLAN + COUNTS : _PLAN + COUNTS + 3]
        return dict(zip(("contiguous", "broadcast", "indexed"), counts, strict=True))

    @property
    def lookups(self) -> int:
        """Batches' index attributes."""
        return self._numbers[_PLAN + LOOKUPS]

    @property
    def bytes_indexed(self) -> int:
        """Bytes of operand rows that kernels read through an index."""
        return self._numbers[_PLAN + BYTES]

    def __repr__(self) -> str:
        return f"RoundReport(batches={self.batches}, nodes={self._numbers[1]}, calls={self.calls})"
