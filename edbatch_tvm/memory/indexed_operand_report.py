"""Which operands a plan leaves indexed, and why."""

from __future__ import annotations

from dataclasses import dataclass

from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.memory.batch_reads import Reads
from edbatch_tvm.memory.layout import row_bytes, signature_of
from edbatch_tvm.memory.plan import Plan
from edbatch_tvm.memory.steps_table import INDEXED, TYPE, CellLayout


@dataclass(frozen=True)
class IndexedOperand:
    """One operand of one batch that is read through the index.

    Attributes
    ----------
    batch : int
    cell, operand : str
    rows : int
        Rows read.
    bytes : int
        Their size.
    reason : str
        The first of these that holds: external rows or zero states among its rows; a value is read twice; values of
        several output slots; values of several batches; one batch, in another order. No plan can avoid the first three.
    """

    batch: int
    cell: str
    operand: str
    rows: int
    bytes: int
    reason: str

    def __str__(self) -> str:
        return f"batch {self.batch}: {self.cell}.{self.operand}, {self.rows} rows, {self.bytes} bytes: {self.reason}"


def indexed_operands(graph: InstanceGraph, plan: Plan) -> list[IndexedOperand]:
    """The operands that `plan` leaves indexed, the largest first."""
    cells = signature_of(graph).cells
    layouts = [CellLayout(len(cell.outputs), len(cell.operands)) for cell in cells]
    strides = [list(map(layout.stride, range(layout.operands))) for layout in layouts]
    steps = enumerate(plan.steps.tolist())
    batches = [(batch, step) for batch, step in steps if INDEXED in [step[stride] for stride in strides[step[TYPE]]]]
    found: list[IndexedOperand] = []
    if not batches:
        return found
    reads = Reads(graph, plan.schedule)
    bounds = plan.schedule.batch_ptr
    for batch, step in batches:
        cell = cells[step[TYPE]]
        nodes = plan.order[bounds[batch] : bounds[batch + 1]].tolist()
        for stride, (operand, values) in zip(strides[step[TYPE]], reads.operands(batch, nodes), strict=True):
            if step[stride] == INDEXED:
                size = len(values) * row_bytes(operand.spec)
                found.append(IndexedOperand(batch, cell.name, operand.name, len(values), size, _reason(reads, values)))
    return sorted(found, key=lambda one: -one.bytes)


def _reason(reads: Reads, values: list[int]) -> str:
    if min(values) < 0:
        return "external rows or zero states among its rows"
    if len(set(values)) < len(values):
        return "a value is read twice"
    slots = len({value % reads.stride for value in values})
    if slots > 1:
        return f"values of {slots} output slots"
    batches = len({reads.batch_of[value // reads.stride] for value in values})
    return f"values of {batches} batches" if batches > 1 else "one batch, in another order"
