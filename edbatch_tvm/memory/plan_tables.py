"""From a layout to what the kernels read: rows of values, the steps table, the index. In NumPy.

The native kernels do the same in one pass; this is what they are tested against.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.graph.spec import CellSignature
from edbatch_tvm.memory.layout import Layout, row_bytes, signature_of
from edbatch_tvm.memory.steps_table import BROADCAST, CONTIGUOUS, COUNT, FIRST, INDEXED, POINTER, TYPE, CellLayout


@dataclass(eq=False)
class Tables:
    """What follows from a layout; see :class:`edbatch_tvm.memory.plan.Plan`.

    Attributes
    ----------
    attribute_row : int32 array of shape [nodes]
        For the types one after the other: the nodes in the order of their rows, as numbers among those of the type.
    lookups, largest_batch, largest_rows : int
    """

    steps: np.ndarray
    index: np.ndarray
    value_row: np.ndarray
    attribute_row: np.ndarray
    operand_counts: np.ndarray
    bytes_indexed: int
    lookups: int
    largest_batch: int
    largest_rows: int


def step_columns(layouts: list[CellLayout]) -> int:
    """Columns of the steps table."""
    return max((layout.width for layout in layouts), default=POINTER + 1)


def fill(graph: InstanceGraph, schedule: Schedule, layout: Layout) -> Tables:
    """The tables of a layout."""
    return _Filler(graph, schedule, layout).tables


def indexes_no_others(graph: InstanceGraph, schedule: Schedule, tables: Tables, layout: Layout) -> bool:
    """Whether every operand that `tables` index is indexed in `layout`, too."""
    other = fill(graph, schedule, layout)
    layouts = [CellLayout(len(cell.outputs), len(cell.operands)) for cell in signature_of(graph)]
    for type_id, layout_of_cell in enumerate(layouts):
        strides = [layout_of_cell.stride(operand) for operand in range(layout_of_cell.operands)]
        batches = np.flatnonzero(schedule.batch_type == type_id)[:, None]
        if ((tables.steps[batches, strides] == INDEXED) & (other.steps[batches, strides] != INDEXED)).any():
            return False
    return True


class _Filler:
    def __init__(self, graph: InstanceGraph, schedule: Schedule, layout: Layout) -> None:
        self.graph = graph
        self.layouts = [CellLayout(len(cell.outputs), len(cell.operands)) for cell in signature_of(graph)]
        self.size = np.diff(schedule.batch_ptr)
        self.pieces: list[np.ndarray] = []
        self.filled = 0
        steps = np.zeros((len(schedule), step_columns(self.layouts)), np.int32)
        steps[:, TYPE] = schedule.batch_type
        steps[:, COUNT] = self.size
        attribute_row = np.empty(graph.num_nodes, np.int32)
        rows, largest = self._rows(schedule, layout), int(self.size.max(initial=0))
        counts = np.zeros(3, np.int64)
        self.tables = Tables(steps, np.zeros(1, np.int32), rows, attribute_row, counts, 0, 0, largest, 0)
        row_of = np.concatenate([self.tables.value_row, external_rows(graph)])
        operand_row = row_of[graph.operand_value]
        type_of_order = graph.node_type[layout.order]
        done = 0
        for type_id, cell in enumerate(signature_of(graph)):
            batches = np.flatnonzero(schedule.batch_type == type_id)
            nodes = layout.order[type_of_order == type_id]
            attribute_row[done : done + len(nodes)] = np.searchsorted(graph.nodes_of(type_id), nodes)
            done += len(nodes)
            self.tables.lookups += len(batches) * sum(attribute.bound is not None for attribute in cell.attributes)
            first = np.zeros(len(batches) + 1, np.int64)
            np.cumsum(self.size[batches], out=first[1:])
            steps[batches, FIRST] = first[:-1]
            for slot in range(len(cell.outputs)):
                steps[batches, self.layouts[type_id].output(slot)] = layout.base[batches, slot]
            if cell.operands and len(batches):
                self._operands(type_id, cell, batches, nodes, first, operand_row)
        if self.pieces:
            self.tables.index = np.concatenate(self.pieces).astype(np.int32, copy=False)

    def _rows(self, schedule: Schedule, layout: Layout) -> np.ndarray:
        """Row of each value."""
        within = np.arange(self.graph.num_nodes, dtype=np.int32) - np.repeat(schedule.batch_ptr[:-1], self.size)
        rows = np.empty((self.graph.num_nodes, self.graph.stride), np.int32)
        rows[layout.order] = np.repeat(layout.base, self.size, axis=0) + within[:, None]
        return rows.ravel()

    def _operands(
        self,
        type_id: int,
        cell: CellSignature,
        batches: np.ndarray,
        nodes: np.ndarray,
        first: np.ndarray,
        operand_row: np.ndarray,
    ) -> None:
        layout, tables = self.layouts[type_id], self.tables
        start = self.graph.operand_ptr[nodes]
        repeat = offsets = None
        if cell.variadic_count:
            arity = self.graph.operand_ptr[nodes + 1] - start
            repeat = (arity - cell.fixed_arity) // cell.variadic_count
            offsets = np.zeros(len(nodes) + 1, np.int32)
            np.cumsum(repeat, out=offsets[1:])
            tables.steps[batches, POINTER] = self._append(offsets) + first[:-1]
            tables.largest_rows = max(tables.largest_rows, int(np.diff(offsets[first]).max()))
        position = start
        for number, operand in enumerate(cell.operands):
            if operand.variadic:
                assert repeat is not None
                assert offsets is not None
                within = np.arange(offsets[-1], dtype=np.int32) - np.repeat(offsets[:-1], repeat)
                rows = operand_row[np.repeat(position, repeat) + within]
                bounds = offsets[first]
                position = position + repeat
            else:
                rows = operand_row[position]
                bounds = first
                position = position + 1
            at = self._append(rows)
            base, stride = _access(rows, bounds, at, counted_from_type=operand.variadic)
            tables.steps[batches, layout.base(number)] = base
            tables.steps[batches, layout.stride(number)] = stride
            indexed = stride == INDEXED
            tables.operand_counts += [np.sum(stride == CONTIGUOUS), np.sum(stride == BROADCAST), np.sum(indexed)]
            tables.bytes_indexed += int(np.diff(bounds)[indexed].sum()) * row_bytes(operand.spec)

    def _append(self, piece: np.ndarray) -> int:
        """Add `piece` to the index vector; where it begins there."""
        at = self.filled
        self.pieces.append(piece)
        self.filled += len(piece)
        return at


def external_rows(graph: InstanceGraph) -> np.ndarray:
    """Rows of external inputs and of the zero state, laid out so that negative operand values index them."""
    return np.append(1 + graph.external_row[::-1], 0).astype(np.int32)


def _access(rows: np.ndarray, bounds: np.ndarray, at: int, counted_from_type: bool) -> tuple[np.ndarray, np.ndarray]:
    """Base and stride of one operand in every batch of a type.

    Parameters
    ----------
    rows : int array
        Rows the operand reads, batch after batch.
    bounds : int array of shape [batches + 1]
        Where each batch begins in `rows`.
    at : int
        Where `rows` stands in the index vector.
    counted_from_type : bool
        True if the kernel counts rows from the first of the type (variadic operands), not of the batch.
    """
    begin, end = bounds[:-1], bounds[1:]
    empty = begin == end
    step = np.diff(rows, append=np.int32(0))
    wrong = np.zeros((2, len(rows) + 1), np.int32)
    np.cumsum(step != 1, out=wrong[0, 1:])
    np.cumsum(step != 0, out=wrong[1, 1:])
    last = np.maximum(end - 1, begin)
    broken = wrong[:, last] - wrong[:, begin]
    stride = np.where(broken[0] == 0, CONTIGUOUS, np.where(broken[1] == 0, BROADCAST, INDEXED))
    first_row = np.append(rows, np.int32(0))[begin]
    first_row[empty] = 0
    shift = begin if counted_from_type else 0
    base = np.where(stride == CONTIGUOUS, first_row - shift, first_row)
    return np.where(stride == INDEXED, at + begin - shift, base), stride
