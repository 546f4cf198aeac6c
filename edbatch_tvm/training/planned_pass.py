"""Backward passes that a compiled kernel plans from the tables of the forward pass, without their graphs.

Graph, schedule and plan of such a pass are made when somebody asks for them: for reports, and for sums that NumPy
computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.find_native import find_native
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import Plan
from edbatch_tvm.native.backward_tables import BackwardSteps
from edbatch_tvm.native.cell_tables import LARGEST, MOST_ROWS
from edbatch_tvm.runtime.cpu_executor import CpuExecutor
from edbatch_tvm.runtime.report import Report
from edbatch_tvm.runtime.result import Result
from edbatch_tvm.runtime.run_tables import RunTables
from edbatch_tvm.training.backward_types import BackwardGraph
from edbatch_tvm.training.compiled_backward_graph import BackwardGraphs, section_attribute

if TYPE_CHECKING:
    from edbatch_tvm.runtime.model import Model
    from edbatch_tvm.training.model import TrainingResult

PLANS = "auto", "batch"
"""Memory plans of backward passes that the kernel makes; of forward passes it reads the second one."""


class PlannedPass:
    """A backward pass as the tables that kernels read.

    Parameters
    ----------
    steps : BackwardSteps
    graphs : BackwardGraphs
    graph : InstanceGraph
        The forward graph.
    make : callable
        Makes the graph of the pass, and its plan.

    Attributes
    ----------
    types : tuple of int
        The types of the forward nodes that have cotangents, rising.
    """

    def __init__(
        self,
        steps: BackwardSteps,
        graphs: BackwardGraphs,
        graph: InstanceGraph,
        make: Callable[[], tuple[BackwardGraph, Plan]],
    ) -> None:
        self.steps = steps
        self._graphs = graphs
        self._graph = graph
        self._make = make
        ends = steps.group_ptr.tolist()
        self.types = tuple(number for number in range(len(ends) - 1) if ends[number + 1] > ends[number])
        self.arena_rows: tuple[int, ...] = tuple(steps.arena_rows.tolist())

    @cached_property
    def made(self) -> tuple[BackwardGraph, Plan]:
        """The graph of the pass, and its plan."""
        return self._make()

    @property
    def tables(self) -> RunTables:
        """What the program reads."""
        steps = self.steps
        counts = steps.counts
        return RunTables(
            steps.steps,
            steps.index,
            self.arena_rows,
            counts[LARGEST],
            counts[MOST_ROWS],
            steps.type_count,
            self._attribute,
        )

    def _attribute(self, type_id: int, name: str) -> np.ndarray:
        forward, section = self._graphs.section_of[type_id]
        return section_attribute(self._graph, forward, section, name, self.steps)


class PlannedReport(Report):
    """What a planned pass did; its graph and plan are made when they are asked for."""

    _pass: PlannedPass

    def __init__(self, planned: PlannedPass, executor: CpuExecutor, calls: Callable[[], int]) -> None:
        self.__dict__.update(_pass=planned, schedule=None, paths=executor.paths, count_kernels=calls, merged=0)
        self.__dict__.update(stored=executor.kernels.stored, seconds={}, products={})

    @property
    def batches(self) -> int:
        """Number of batches."""
        return len(self._pass.steps.steps)

    @cached_property
    def graph(self) -> InstanceGraph:
        """The graph of the pass."""
        return self._pass.made[0].graph

    @cached_property
    def plan(self) -> Plan:
        """Its plan."""
        return self._pass.made[1]


class PlannedResult(Result):
    """The rows of a planned pass.

    Parameters
    ----------
    planned : PlannedPass
    compiled : Model
        The cells of the backward pass.
    executor : CpuExecutor
        Its executor.
    views : list of array
        The arenas.
    calls : callable
        Counts the kernels that ran.
    """

    def __init__(
        self,
        planned: PlannedPass,
        compiled: Model,
        executor: CpuExecutor,
        views: list[np.ndarray],
        calls: Callable[[], int],
    ) -> None:
        self._pass = planned
        self._views = views
        self._storage = executor.kernels.storage
        self._signature = compiled.signature
        self.report = PlannedReport(planned, executor, calls)

    @property
    def graph(self) -> InstanceGraph:  # type: ignore[override]
        """The graph of the pass."""
        return self.report.graph

    @property
    def plan(self) -> Plan:  # type: ignore[override]
        """Its plan."""
        return self.report.plan


def planned_pass(
    forward: TrainingResult,
    values: np.ndarray,
    graphs: BackwardGraphs,
    compiled: Model,
    lengths: Callable[[], tuple[np.ndarray, ...]],
) -> PlannedPass | None:
    """The backward pass of a result by the compiled kernel; None where it takes a graph.

    Parameters
    ----------
    forward : TrainingResult
    values : int64 array
        Those whose cotangents are given, rising.
    graphs : BackwardGraphs
    compiled : Model
        The cells of the backward pass.
    lengths : callable
        Arrays of as many rows as each arena has external ones.
    """
    graph, plan, detached = forward.graph, forward.plan, forward.detached
    plans = plan.name == PLANS[1] and compiled.plan_name in PLANS and compiled.fused
    if not plans or not isinstance(compiled.executor, CpuExecutor) or not len(values):
        return None
    native = find_native("plan backward passes")
    if native is None:
        return None

    def make() -> tuple[BackwardGraph, Plan]:
        made = graphs.make(graph, plan, values, detached)
        made.graph.external_data = external
        made.graph.checked = made.schedule.checked = True
        return made, compiled.plan(made.graph, made.schedule)

    external = lengths()
    steps = native.steps(graph, plan, values, detached, graphs.tables, compiled.signature)
    return PlannedPass(steps, graphs, graph, make)
