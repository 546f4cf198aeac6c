"""Memory plans: whether a layout indexes what the tables of another do not.

`p` is the kernel's :class:`~edbatch_tvm.native.tir.buffers.PlanArguments`, `c` its :class:`Comparison`.
"""

# ruff: noqa: D103
# mypy: ignore-errors

from typing import Any

from edbatch_tvm.memory.steps_table import INDEXED, OUTPUTS
from edbatch_tvm.native.cell_tables import OPERANDS, REPEATED, VARIADIC, WIDTH
from edbatch_tvm.native.tir.buffers import PlanArguments, Workspace, argument, scalar, size
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T


class Comparison:
    """Working storage and scalars of ``any_worse``."""

    def __init__(self, p: PlanArguments, work: Any) -> None:
        cut = Workspace(work).cut
        self.batch_of = cut("batch_of", p.n)
        self.seat = cut("seat", p.n)  # place of a node in its batch
        # Of one operand of one batch: whether rows jump or change, rows so far are some, this row and the one before.
        self.jumps = scalar("jumps", 0)
        self.changes = scalar("changes", 0)
        self.at = scalar("at", 0)
        self.row = scalar("row", 0)
        self.before = scalar("before", 0)


@inlined
def compare_rows(p, c, u, o, node):
    # The rows of operand o of a node, each with the row before.
    v: T.let = node
    repeat = 0
    if p.cells[u, REPEATED] > 0:
        repeat = p.repeats(u, v)
    first: T.let = p.operand_ptr[v] + p.position(u, o, repeat)
    for j in range(T.Select(p.operands[u, o, VARIADIC] == 1, repeat, 1)):
        value: T.let = p.operand_value[first + j]
        producer: T.let = p.operand_node[first + j]
        if producer >= 0:
            c.row = p.base[c.batch_of[producer], value - producer * p.slots] + c.seat[producer]
        else:
            c.row = p.outside[-1 - value]
        if c.at > 0 and c.row != c.before + 1:
            c.jumps = 1
        if c.at > 0 and c.row != c.before:
            c.changes = 1
        c.before = c.row
        c.at = 1


@T.prim_func
def any_worse(
    operand_ptr_: T.handle,
    operand_value_: T.handle,
    operand_node_: T.handle,
    outside_: T.handle,
    order_: T.handle,
    batch_ptr_: T.handle,
    batch_type_: T.handle,
    base_: T.handle,
    cells_: T.handle,
    operands_: T.handle,
    steps_: T.handle,
    work_: T.handle,
    io_: T.handle,
):
    # io[0] = number of operands that are indexed by `steps`, but not where rows are given by `order` and `base`.
    T.func_attr({"tirx.noalias": True})
    p = T.meta_var(
        PlanArguments(
            operand_ptr_,
            operand_value_,
            outside_,
            order_,
            batch_ptr_,
            batch_type_,
            base_,
            cells_,
            operands_,
            operand_node_,
        )
    )
    steps = T.meta_var(argument(steps_, (p.m, size("columns"))))
    io = T.meta_var(argument(io_, (1,), "int64"))
    c = T.meta_var(Comparison(p, work_))
    worse = 0
    for b in range(p.m):
        u: T.let = T.Cast("int32", p.batch_type[b])
        begin: T.let = p.batch_ptr[b]
        size_of: T.let = p.batch_ptr[b + 1] - begin
        for i in range(size_of):
            c.batch_of[p.order[begin + i]] = b
            c.seat[p.order[begin + i]] = i
        for o in range(p.cells[u, OPERANDS]):
            if steps[b, OUTPUTS + p.cells[u, WIDTH] + 2 * o + 1] == INDEXED:
                c.jumps = 0
                c.changes = 0
                c.at = 0
                c.before = 0
                i = 0
                while i < size_of and (c.jumps == 0 or c.changes == 0):
                    compare_rows(p, c, u, o, p.order[begin + i])
                    i += 1
                if c.jumps == 0 or c.changes == 0:
                    worse += 1
    io[0] = T.Cast("int64", worse)
