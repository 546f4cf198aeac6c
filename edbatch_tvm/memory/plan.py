"""Memory plans: where each value lies, and how each batch reads its operands.

The plan ``batch`` gives values rows by batch, in schedule order: the results of a batch are contiguous, and whether
its operands are is luck. Row 0 of every arena is the zero state; external rows come next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edbatch_tvm.errors import PlanError
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.graph.spec import CellSignature, Signature
from edbatch_tvm.memory.steps import BROADCAST, CONTIGUOUS, COUNT, FIRST, INDEXED, POINTER, TYPE, CellLayout

if TYPE_CHECKING:
    from edbatch_tvm.batching.schedule import Schedule

PLANS = ("batch",)
"""Names of the plans that exist."""


@dataclass(frozen=True)
class Plan:
    """Where the values of one scheduled graph lie.

    Attributes
    ----------
    name : str
        Which plan this is.
    schedule : Schedule
        The schedule it was made for.
    steps : int32 array of shape [batches, columns]
        See :mod:`edbatch_tvm.memory.steps`.
    index : int32 array
        Rows of indexed operands, and offsets of variadic ones.
    value_row : int32 array of shape [nodes * stride]
        Row of each value in the arena of its spec.
    arena_rows : tuple of int
        Rows each arena needs.
    attribute_order : dict from type id to int array
        For a type with attributes: its nodes' attribute rows in schedule order.
    operand_counts : int array of shape [3]
        Operands (an operand slot of a batch counts once) that are contiguous, broadcast, indexed.
    bytes_indexed : int
        Bytes of operand rows read through the index, a row counted as often as it is read.
    lookups : int
        Index attributes of batches: rows of weight tables are read through them.
    largest_batch : int
    """

    name: str
    schedule: Schedule
    steps: np.ndarray
    index: np.ndarray
    value_row: np.ndarray
    arena_rows: tuple[int, ...]
    attribute_order: dict[int, np.ndarray]
    operand_counts: np.ndarray
    bytes_indexed: int
    lookups: int
    largest_batch: int

    @property
    def operands(self) -> dict[str, int]:
        """Number of contiguous, broadcast and indexed operands, by name."""
        return dict(zip(("contiguous", "broadcast", "indexed"), map(int, self.operand_counts), strict=True))

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}={count}" for name, count in self.operands.items())
        return f"Plan({self.name!r}, steps={list(self.steps.shape)}, arena_rows={list(self.arena_rows)}, {counts})"


def plan_memory(graph: InstanceGraph, schedule: Schedule, plan: str = "batch") -> Plan:
    """Rows for the values of `graph` as `schedule` runs it.

    Parameters
    ----------
    graph : InstanceGraph
        With a signature: the shapes of values have to be known.
    schedule : Schedule
        A valid schedule of `graph`.
    plan : {"batch"}

    Raises
    ------
    PlanError
        If there is no such plan, or the graph has no signature.
    """
    if plan not in PLANS:
        raise PlanError(f"unknown plan {plan!r}", f"one of {', '.join(PLANS)}")
    if graph.signature is None:
        raise PlanError("a graph without a signature", "a graph built with a model's builder: shapes have to be known")
    return _Planner(graph, graph.signature, schedule, plan).plan()


class _Planner:
    def __init__(self, graph: InstanceGraph, signature: Signature, schedule: Schedule, name: str) -> None:
        self.graph = graph
        self.signature = signature
        self.name = name
        self.schedule = schedule
        self.order = schedule.order
        self.batch_type = schedule.batch_type
        self.batch_ptr = schedule.batch_ptr
        self.size = np.diff(schedule.batch_ptr)
        self.layouts = [CellLayout(len(cell.outputs), len(cell.operands)) for cell in signature]
        columns = max((layout.width for layout in self.layouts), default=POINTER + 1)
        self.steps = np.zeros((len(schedule), columns), np.int32)
        self.pieces: list[np.ndarray] = []
        self.filled = 0
        self.counts = np.zeros(3, np.int64)
        self.bytes_indexed = 0
        self.lookups = 0

    def plan(self) -> Plan:
        self.steps[:, TYPE] = self.batch_type
        self.steps[:, COUNT] = self.size
        value_row, arena_rows = self._place()
        row_of = np.concatenate([value_row, self._external_rows()])
        operand_row = row_of[self.graph.operand_value]
        type_of_order = self.graph.node_type[self.order]
        attribute_order: dict[int, np.ndarray] = {}
        for type_id, cell in enumerate(self.signature):
            batches = np.flatnonzero(self.batch_type == type_id)
            if not len(batches):
                continue
            nodes = self.order[type_of_order == type_id]
            first = np.zeros(len(batches) + 1, np.int64)
            np.cumsum(self.size[batches], out=first[1:])
            self.steps[batches, FIRST] = first[:-1]
            if cell.attributes:
                attribute_order[type_id] = np.searchsorted(self.graph.nodes_of(type_id), nodes)
                self.lookups += len(batches) * sum(a.bound is not None for a in cell.attributes)
            if cell.operands:
                self._operands(type_id, cell, batches, nodes, first, operand_row)
        return Plan(
            self.name,
            self.schedule,
            self.steps,
            np.concatenate(self.pieces).astype(np.int32, copy=False) if self.pieces else np.zeros(1, np.int32),
            value_row,
            arena_rows,
            attribute_order,
            self.counts,
            self.bytes_indexed,
            self.lookups,
            int(self.size.max(initial=0)),
        )

    def _place(self) -> tuple[np.ndarray, tuple[int, ...]]:
        """Rows of all values, batch after batch, and the rows every arena needs."""
        graph, signature = self.graph, self.signature
        arena_of = signature.output_arena[self.batch_type]
        base = np.zeros(arena_of.shape, np.int32)
        arena_rows = []
        for arena in range(len(signature.value_specs)):
            external = len(graph.external_data[arena]) if graph.external_data else 0
            taken = np.where(arena_of == arena, self.size[:, None], 0).ravel()
            end = np.cumsum(taken)
            here = (arena_of == arena).ravel()
            base.ravel()[here] = 1 + external + (end - taken)[here]
            arena_rows.append(1 + external + (int(end[-1]) if len(end) else 0))
        for type_id, layout in enumerate(self.layouts):
            batches = np.flatnonzero(self.batch_type == type_id)
            for slot in range(layout.outputs):
                self.steps[batches, layout.output(slot)] = base[batches, slot]
        value_row = np.empty((graph.num_nodes, signature.stride), np.int32)
        within = np.arange(graph.num_nodes, dtype=np.int32) - np.repeat(self.batch_ptr[:-1], self.size)
        value_row[self.order] = np.repeat(base, self.size, axis=0) + within[:, None]
        return value_row.ravel(), tuple(arena_rows)

    def _external_rows(self) -> np.ndarray:
        """Rows of external inputs and of the zero state, laid out so that negative operand values index them."""
        return np.append(1 + self.graph.external_row[::-1], 0).astype(np.int32)

    def _operands(
        self,
        type_id: int,
        cell: CellSignature,
        batches: np.ndarray,
        nodes: np.ndarray,
        first: np.ndarray,
        operand_row: np.ndarray,
    ) -> None:
        layout = self.layouts[type_id]
        start = self.graph.operand_ptr[nodes]
        repeat = offsets = None
        if cell.variadic_count:
            arity = self.graph.operand_ptr[nodes + 1] - start
            repeat = (arity - cell.fixed_arity) // cell.variadic_count
            offsets = np.zeros(len(nodes) + 1, np.int32)
            np.cumsum(repeat, out=offsets[1:])
            self.steps[batches, POINTER] = self._append(offsets) + first[:-1]
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
            self.steps[batches, layout.base(number)] = base
            self.steps[batches, layout.stride(number)] = stride
            indexed = stride == INDEXED
            self.counts += [np.sum(stride == CONTIGUOUS), np.sum(stride == BROADCAST), np.sum(indexed)]
            row_bytes = operand.spec.size * np.dtype(operand.spec.dtype).itemsize
            self.bytes_indexed += int(np.diff(bounds)[indexed].sum()) * row_bytes

    def _append(self, piece: np.ndarray) -> int:
        """Add `piece` to the index vector; where it begins there."""
        at = self.filled
        self.pieces.append(piece)
        self.filled += len(piece)
        return at


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
