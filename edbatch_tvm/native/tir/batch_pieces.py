"""Steps tables: large batches cut into pieces; the same as :mod:`edbatch_tvm.runtime.split_batches`."""

# ruff: noqa: D103
# mypy: ignore-errors

from typing import Any

from edbatch_tvm.memory.steps_table import BROADCAST, COUNT, FIRST, OUTPUTS, POINTER, TYPE
from edbatch_tvm.native.cell_tables import OPERANDS, REPEATED, VARIADIC, WIDTH
from edbatch_tvm.native.tir.buffers import argument, size
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T


class PieceTables:
    """The steps that pieces are cut from and those that are made, and the tables of cells."""

    def __init__(self, steps: Any, made: Any, columns: Any, cells: Any, operands: Any) -> None:
        self.steps = steps
        self.made = made
        self.columns = columns
        self.cells = cells
        self.operands = operands


@inlined
def write_pieces(p, b, low, count, parts, at):
    """Write the steps of `parts` pieces, from row `at` on: they are nodes `low` to `low + count` of batch `b`."""
    u: T.let = p.steps[b, TYPE]
    per: T.let = T.truncdiv(count, T.max(parts, 1))
    larger: T.let = count - per * parts  # this many pieces have one node more than the others
    for q in range(parts):
        begin: T.let = low + q * per + T.min(q, larger)
        for c in range(p.columns):
            p.made[at + q, c] = p.steps[b, c]
        p.made[at + q, COUNT] = per + T.Select(q < larger, 1, 0)
        p.made[at + q, FIRST] = p.steps[b, FIRST] + begin
        if p.cells[u, REPEATED] > 0:
            p.made[at + q, POINTER] = p.steps[b, POINTER] + begin
        for s in range(p.cells[u, WIDTH]):
            p.made[at + q, OUTPUTS + s] = p.steps[b, OUTPUTS + s] + begin
        for o in range(p.cells[u, OPERANDS]):
            base: T.let = OUTPUTS + p.cells[u, WIDTH] + 2 * o
            # Rows of variadic operands are counted over all nodes of the type.
            if p.steps[b, base + 1] != BROADCAST and p.operands[u, o, VARIADIC] == 0:
                p.made[at + q, base] = p.steps[b, base] + begin


@T.prim_func
def cut(
    threads: T.int32,
    steps_: T.handle,
    # For each type how many nodes a piece has at most, in one thread.
    most_: T.handle,
    cells_: T.handle,
    operands_: T.handle,
    # Results: the steps of all pieces, and where those of each batch begin; how many there are. If they have no room,
    # only that.
    made_: T.handle,
    first_: T.handle,
    io_: T.handle,
):
    T.func_attr({"tirx.noalias": True})
    m = T.int32()
    columns = T.int32()
    steps = T.meta_var(argument(steps_, (m, columns)))
    most = T.meta_var(argument(most_, (size("types"),), "int64"))
    cells = T.meta_var(argument(cells_, (size("types_too"), 5)))
    operands = T.meta_var(argument(operands_, (size("types_of_operands"), size("operands_of_cell"), 4)))
    pieces = T.int32()
    made = T.meta_var(argument(made_, (pieces, columns)))
    first = T.meta_var(argument(first_, (m + 1,)))
    io = T.meta_var(argument(io_, (1,), "int64"))
    p = T.meta_var(PieceTables(steps, made, columns, cells, operands))

    total = 0
    for b in range(m):
        first[b] = total
        limit: T.let = most[steps[b, TYPE]] * T.Cast("int64", threads)
        count: T.let = T.Cast("int64", steps[b, COUNT])
        total += T.Cast("int32", T.truncdiv(count + limit - T.int64(1), limit))
    first[m] = total
    io[0] = T.Cast("int64", total)
    if total > m and total <= pieces:
        for b in range(m):
            write_pieces(p, b, 0, steps[b, COUNT], first[b + 1] - first[b], first[b])
