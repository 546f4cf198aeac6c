"""The planner: the fast one if there is one, else NumPy and plain Python."""

from __future__ import annotations

from typing import Protocol

from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.find_native import find_native
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.memory import layout, order_plan, plan_tables
from edbatch_tvm.memory.layout import Layout
from edbatch_tvm.memory.plan_tables import Tables


class Planner(Protocol):
    """The steps of planning that run for every minibatch."""

    def by_batch(self, graph: InstanceGraph, schedule: Schedule) -> Layout:
        """The layout of the plan ``batch``."""

    def fill_by_batch(self, graph: InstanceGraph, schedule: Schedule) -> tuple[Layout, Tables]:
        """The layout of the plan ``batch``, and its tables."""

    def order(self, graph: InstanceGraph, schedule: Schedule) -> Layout:
        """The layout of the plan ``order``."""

    def fill(self, graph: InstanceGraph, schedule: Schedule, layout: Layout) -> Tables:
        """The tables of a layout."""

    def indexes_no_others(self, graph: InstanceGraph, schedule: Schedule, tables: Tables, layout: Layout) -> bool:
        """Whether every operand that `tables` index is indexed in `layout`, too."""


class ReferencePlanner:
    """The same in NumPy and plain Python."""

    by_batch = staticmethod(layout.by_batch)
    order = staticmethod(order_plan.reference_order)
    fill = staticmethod(plan_tables.fill)
    indexes_no_others = staticmethod(plan_tables.indexes_no_others)

    @staticmethod
    def fill_by_batch(graph: InstanceGraph, schedule: Schedule) -> tuple[Layout, Tables]:
        """The layout of the plan ``batch``, and its tables."""
        found = layout.by_batch(graph, schedule)
        return found, plan_tables.fill(graph, schedule, found)


_REFERENCE = ReferencePlanner()


def select_planner(graph: InstanceGraph) -> Planner:
    """The planner to use for `graph`."""
    found: Planner | None = find_native("plan") if graph.num_nodes else None
    return found or _REFERENCE
