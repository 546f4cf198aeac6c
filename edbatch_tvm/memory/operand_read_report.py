"""How every operand of every batch of a plan is read."""

from __future__ import annotations

from dataclasses import dataclass

from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.memory.indexed_operand_report import indexed_operands
from edbatch_tvm.memory.layout import row_bytes, signature_of
from edbatch_tvm.memory.plan import Plan
from edbatch_tvm.memory.steps_table import BROADCAST, CONTIGUOUS, COUNT, INDEXED, POINTER, TYPE, CellLayout

_HOW = {CONTIGUOUS: "contiguous", BROADCAST: "broadcast", INDEXED: "indexed"}


@dataclass(frozen=True)
class OperandUse:
    """How one operand of one batch is read.

    Attributes
    ----------
    batch : int
    cell, operand : str
    nodes : int
        Nodes of the batch.
    how : str
        ``contiguous``, ``broadcast`` or ``indexed``.
    bytes : int
        Size of the rows read, each row counted as often as it is read.
    why : str
        For an indexed operand, what stands in the way; see :class:`edbatch_tvm.memory.IndexedOperand`.
    """

    batch: int
    cell: str
    operand: str
    nodes: int
    how: str
    bytes: int
    why: str


def operand_read_report(graph: InstanceGraph, plan: Plan) -> list[OperandUse]:
    """Every operand of every batch of `plan`, in the order they run."""
    reasons = {(one.batch, one.operand): one.reason for one in indexed_operands(graph, plan)}
    cells = signature_of(graph).cells
    operands = []  # of each cell: name, whether it is variadic, bytes of a row, column of its stride
    for cell in cells:
        layout = CellLayout(len(cell.outputs), len(cell.operands))
        operands.append(
            [(o.name, o.variadic, row_bytes(o.spec), layout.stride(number)) for number, o in enumerate(cell.operands)]
        )
    uses = []
    for batch, step in enumerate(plan.steps.tolist()):
        cell, nodes, begin = cells[step[TYPE]], step[COUNT], step[POINTER]
        variadic = int(plan.index[begin + nodes] - plan.index[begin]) if cell.variadic_count else 0
        for name, is_variadic, row, stride in operands[step[TYPE]]:
            size = (variadic if is_variadic else nodes) * row
            uses.append(
                OperandUse(batch, cell.name, name, nodes, _HOW[step[stride]], size, reasons.get((batch, name), ""))
            )
    return uses
