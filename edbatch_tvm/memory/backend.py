"""Where the fast planner comes from: :mod:`edbatch_tvm.native` if it can be had, else NumPy and plain Python.

This package itself never imports TVM. The native package is imported when a plan is first asked for.
"""

from __future__ import annotations

import importlib
from typing import Protocol

from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.graph import backend
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.memory import layout, order, tables
from edbatch_tvm.memory.layout import Layout
from edbatch_tvm.memory.tables import Tables


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
    order = staticmethod(order.reference_order)
    fill = staticmethod(tables.fill)
    indexes_no_others = staticmethod(tables.indexes_no_others)

    @staticmethod
    def fill_by_batch(graph: InstanceGraph, schedule: Schedule) -> tuple[Layout, Tables]:
        """The layout of the plan ``batch``, and its tables."""
        found = layout.by_batch(graph, schedule)
        return found, tables.fill(graph, schedule, found)


_REFERENCE = ReferencePlanner()
_native: Planner | None = None
_looked_for = False


def planner(graph: InstanceGraph) -> Planner:
    """The planner to use for `graph`."""
    global _native, _looked_for
    if backend.python_only or not graph.num_nodes:
        return _REFERENCE
    if not _looked_for:
        _looked_for = True
        try:
            _native = importlib.import_module("edbatch_tvm.native.planner").load()
        except (ImportError, OSError, RuntimeError):
            _native = None
    return _native or _REFERENCE
