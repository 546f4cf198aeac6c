"""Why operands are read as they are: one record for each operand of each batch of a plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.memory.layout import signature_of
from edbatch_tvm.memory.plan import Plan
from edbatch_tvm.memory.steps import BROADCAST, CONTIGUOUS, COUNT, POINTER, TYPE, CellLayout


@dataclass(frozen=True)
class OperandUse:
    """How one operand of one batch is read.

    Attributes
    ----------
    batch : int
    cell, operand : str
    nodes, rows : int
        Nodes of the batch, and rows they read for this operand.
    how : str
        ``contiguous``, ``broadcast`` or ``indexed``.
    why : str
        For an indexed operand, what stands in the way.
    """

    batch: int
    cell: str
    operand: str
    nodes: int
    rows: int
    how: str
    why: str


def operand_uses(graph: InstanceGraph, plan: Plan) -> list[OperandUse]:
    """Every operand of every batch of `plan`, in the order they run."""
    signature = signature_of(graph)
    writer = _writers(graph, plan)
    uses = []
    for batch, step in enumerate(plan.steps):
        cell = signature[int(step[TYPE])]
        layout = CellLayout(len(cell.outputs), len(cell.operands))
        count = int(step[COUNT])
        for number, operand in enumerate(cell.operands):
            base, stride = int(step[layout.base(number)]), int(step[layout.stride(number)])
            low, high = 0, count
            if operand.variadic:
                low, high = plan.index[step[POINTER]], plan.index[step[POINTER] + count]
            how = "contiguous" if stride == CONTIGUOUS else "broadcast" if stride == BROADCAST else "indexed"
            why = ""
            if how == "indexed":
                why = _reason(plan.index[base + low : base + high], writer[signature.arena(operand.spec)])
            uses.append(OperandUse(batch, cell.name, operand.name, count, int(high - low), how, why))
    return uses


def _writers(graph: InstanceGraph, plan: Plan) -> list[np.ndarray]:
    """For every arena, the batch that writes each row; -1 for zero states and external rows."""
    signature = signature_of(graph)
    batch_of = np.empty(graph.num_nodes, np.int64)
    batch_of[plan.schedule.order] = np.repeat(np.arange(len(plan.schedule)), np.diff(plan.schedule.batch_ptr))
    writers = [np.full(rows, -1, np.int64) for rows in plan.arena_rows]
    arena_of = signature.output_arena[graph.node_type]
    rows = plan.value_row.reshape(graph.num_nodes, signature.stride)
    for arena, writer in enumerate(writers):
        node, slot = np.nonzero(arena_of == arena)
        writer[rows[node, slot]] = batch_of[node]
    return writers


def _reason(rows: np.ndarray, writer: np.ndarray) -> str:
    if len(np.unique(rows)) < len(rows):
        return f"{len(np.unique(rows))} rows serve {len(rows)} reads"
    batches = np.unique(writer[rows])
    if len(batches) > 1:
        return f"rows of {len(batches)} batches"
    whole = int((writer == batches[0]).sum())
    if np.ptp(rows) + 1 == len(rows):
        return f"all {len(rows)} rows of a run, in another order"
    return f"{len(rows)} of the {whole} rows of batch {batches[0]}, with gaps" if batches[0] >= 0 else "external rows"
