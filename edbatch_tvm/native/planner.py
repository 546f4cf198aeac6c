"""The planning kernels with NumPy arrays; see :class:`edbatch_tvm.memory.native_or_numpy_planner.Planner`."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.graph import InstanceGraph, Signature
from edbatch_tvm.memory import Plan
from edbatch_tvm.memory.layout import Layout, signature_of
from edbatch_tvm.memory.plan_tables import Tables
from edbatch_tvm.native.arguments import as_argument, never_empty
from edbatch_tvm.native.build import load_library
from edbatch_tvm.native.cell_tables import (
    BYTES,
    COUNTS,
    FILLED,
    IO_SLOTS,
    LARGEST,
    LOOKUPS,
    MOST_ROWS,
    WEIGHTS,
    cell_tables,
)

_USUAL_PIECES = 64
"""Room for more pieces than twice the batches; where there are more still, it is made."""


class NativePlanner:
    """The fast planner. Its graphs have nodes.

    Raises
    ------
    ImportError
        If TVM is missing.
    """

    def __init__(self) -> None:
        library = load_library("plan")
        self._place = library["place"]
        self._fill = library["fill"]
        self._order = library["order"]
        self._any_worse = library["any_worse"]
        self._cut = library["cut"]
        self._divide = library["divide"]

    def by_batch(self, graph: InstanceGraph, schedule: Schedule) -> Layout:
        """The layout of the plan ``batch``."""
        return Layout(schedule.order, *self._blocks(graph, schedule, 0))

    def fill_by_batch(self, graph: InstanceGraph, schedule: Schedule) -> tuple[Layout, Tables]:
        """The layout of the plan ``batch``, and its tables."""
        base, arena_rows = np.empty((len(schedule), graph.stride), np.int32), _arena_rows(graph)
        tables = self._filled(graph, schedule, schedule.order, base, arena_rows, 1)
        return Layout(schedule.order, base, tuple(arena_rows.tolist())), tables

    def order(self, graph: InstanceGraph, schedule: Schedule) -> Layout:
        """The layout of the plan ``order``."""
        tables = cell_tables(signature_of(graph))
        base, arena_rows = self._blocks(graph, schedule, 1)
        nodes, batches = graph.num_nodes, len(schedule)
        asks = batches * tables.operands.shape[1]
        order = np.empty(nodes, np.int32)
        self._order(
            as_argument(graph.operand_ptr),
            never_empty(graph.operand_value),
            never_empty(graph.operand_node),
            _outside(graph),
            as_argument(schedule.order),
            as_argument(schedule.batch_ptr),
            as_argument(schedule.batch_type, np.int16),
            base,
            tables.cells,
            tables.operands,
            np.empty(9 * nodes + 3 * batches + max(1, len(graph.operand_value)) + 5 * asks + 1 + WEIGHTS, np.int32),
            np.empty(asks, np.int64),
            order,
        )
        return Layout(order, base, arena_rows)

    def fill(self, graph: InstanceGraph, schedule: Schedule, layout: Layout) -> Tables:
        """The tables of a layout."""
        return self._filled(graph, schedule, layout.order, layout.base, _arena_rows(graph), 0)

    def _filled(
        self,
        graph: InstanceGraph,
        schedule: Schedule,
        order: np.ndarray,
        base: np.ndarray,
        arena_rows: np.ndarray,
        stack: int,
    ) -> Tables:
        """Tables; with `stack` 1, `base` and `arena_rows` are results, too."""
        tables = cell_tables(signature_of(graph))
        nodes, types = graph.num_nodes, len(tables.cells)
        steps = np.zeros((len(schedule), tables.columns), np.int32)
        index = np.empty(len(graph.operand_value) + nodes + types, np.int32)
        value_row = np.empty((nodes, graph.stride), np.int32)
        attribute_row = np.empty(nodes, np.int32)
        io = np.zeros(IO_SLOTS, np.int64)
        self._fill(
            stack,
            tables.output_arena,
            arena_rows,
            as_argument(graph.node_type, np.int16),
            as_argument(graph.operand_ptr),
            never_empty(graph.operand_value),
            _outside(graph),
            as_argument(order),
            as_argument(schedule.batch_ptr),
            as_argument(schedule.batch_type, np.int16),
            base,
            tables.cells,
            tables.operands,
            np.empty(2 * nodes + (6 + tables.operands.shape[1]) * types, np.int32),
            steps,
            index,
            value_row,
            attribute_row,
            io,
        )
        found = io.tolist()
        filled = found[FILLED]
        if not filled:
            index[:1] = 0
        return Tables(
            steps,
            index[: max(1, filled)],
            value_row.ravel(),
            attribute_row,
            io[COUNTS : COUNTS + 3],
            found[BYTES],
            found[LOOKUPS],
            found[LARGEST],
            found[MOST_ROWS],
        )

    def cut(
        self, signature: Signature, steps: np.ndarray, most: np.ndarray, threads: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """See :meth:`~edbatch_tvm.runtime.split_batches.SplitBatches.steps`, of which `most` is an array."""
        batches, columns = steps.shape
        steps, tables, io = as_argument(steps), cell_tables(signature), np.empty(1, np.int64)
        first, room = np.empty(batches + 1, np.int32), 2 * batches + _USUAL_PIECES
        while True:
            made = np.empty((room, columns), np.int32)
            self._cut(threads, steps, most, tables.cells, tables.operands, made, first, io)
            total = int(io[0])
            if total <= batches:
                return steps, None
            if total <= room:
                return made[:total], first
            room = total

    def divide(
        self,
        graph: InstanceGraph,
        plan: Plan,
        work: np.ndarray,
        most: np.ndarray,
        threads: int,
        largest_percent: int,
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """See :func:`edbatch_tvm.runtime.shares.divide`."""
        batches, columns = plan.steps.shape
        tables, room = cell_tables(signature_of(graph)), threads * batches + _USUAL_PIECES
        first, io = np.empty(threads + 1, np.int32), np.empty(1, np.int64)
        while True:
            made = np.empty((room, columns), np.int32)
            io[0] = largest_percent
            self._divide(
                threads,
                work,
                as_argument(graph.type_count, np.int64),
                as_argument(graph.node_type, np.int16),
                as_argument(graph.node_ptr),
                as_argument(graph.operand_ptr),
                never_empty(graph.operand_value),
                graph.stride,
                as_argument(plan.order),
                as_argument(plan.schedule.batch_ptr),
                as_argument(plan.steps),
                most,
                tables.cells,
                tables.operands,
                np.empty(threads, np.int64),
                np.empty((2, threads + 1), np.int32),
                np.empty((batches, threads + 1), np.int32),
                made,
                first,
                io,
            )
            total = int(io[0])
            if not total:
                return None
            if total <= room:
                return made[:total], first
            room = total

    def indexes_no_others(self, graph: InstanceGraph, schedule: Schedule, tables: Tables, layout: Layout) -> bool:
        """Whether every operand that `tables` index is indexed in `layout`, too."""
        if not tables.operand_counts[2]:
            return True
        cells = cell_tables(signature_of(graph))
        io = np.zeros(1, np.int64)
        self._any_worse(
            as_argument(graph.operand_ptr),
            never_empty(graph.operand_value),
            never_empty(graph.operand_node),
            _outside(graph),
            as_argument(layout.order),
            as_argument(schedule.batch_ptr),
            as_argument(schedule.batch_type, np.int16),
            layout.base,
            cells.cells,
            cells.operands,
            tables.steps,
            np.empty(2 * graph.num_nodes, np.int32),
            io,
        )
        return not io[0]

    def _blocks(self, graph: InstanceGraph, schedule: Schedule, together: int) -> tuple[np.ndarray, tuple[int, ...]]:
        base, arena_rows = np.empty((len(schedule), graph.stride), np.int32), _arena_rows(graph)
        tables = cell_tables(signature_of(graph))
        work = np.empty(len(schedule) + len(tables.cells), np.int32)
        batch_ptr, batch_type = as_argument(schedule.batch_ptr), as_argument(schedule.batch_type, np.int16)
        self._place(together, batch_ptr, batch_type, tables.output_arena, work, base, arena_rows)
        return base, tuple(arena_rows.tolist())


def load() -> NativePlanner:
    """The kernels, built if this machine has none yet.

    Raises
    ------
    ImportError
        If TVM is missing.
    """
    return NativePlanner()


def _arena_rows(graph: InstanceGraph) -> np.ndarray:
    """Rows of each arena before the first block: the zero state and external rows."""
    rows = np.ones(len(signature_of(graph).value_specs), np.int32)
    for arena, given in enumerate(graph.external_data):
        rows[arena] += len(given)
    return rows


def _outside(graph: InstanceGraph) -> np.ndarray:
    """Row of the operand value -1 - i: first the zero state, then the external rows."""
    if not len(graph.external_row):
        return _ZERO
    rows = np.empty(1 + len(graph.external_row), np.int32)
    rows[0] = 0
    np.add(graph.external_row, 1, out=rows[1:])
    return rows


_ZERO = np.zeros(1, np.int32)
