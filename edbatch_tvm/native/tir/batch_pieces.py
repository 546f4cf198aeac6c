"""Steps tables: large batches cut into pieces; the same as :mod:`edbatch_tvm.runtime.split_batches`."""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.memory.steps_table import BROADCAST, COUNT, FIRST, OUTPUTS, TYPE
from edbatch_tvm.native.cell_tables import OPERANDS, WIDTH
from edbatch_tvm.native.tir.buffers import argument, size
from edbatch_tvm.tvm_compat import script_tirx as T


@T.prim_func
def cut(
    threads: T.int32,
    steps_: T.handle,
    # For each type how many nodes a piece has at most, in one thread.
    most_: T.handle,
    cells_: T.handle,
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
    pieces = T.int32()
    made = T.meta_var(argument(made_, (pieces, columns)))
    first = T.meta_var(argument(first_, (m + 1,)))
    io = T.meta_var(argument(io_, (1,), "int64"))

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
            at: T.let = first[b]
            parts: T.let = first[b + 1] - at
            u: T.let = steps[b, TYPE]
            share: T.let = T.truncdiv(steps[b, COUNT], parts)
            larger: T.let = steps[b, COUNT] - share * parts  # this many pieces have one node more than the others
            for p in range(parts):
                begin: T.let = p * share + T.min(p, larger)
                for c in range(columns):
                    made[at + p, c] = steps[b, c]
                made[at + p, COUNT] = share + T.Select(p < larger, 1, 0)
                made[at + p, FIRST] = steps[b, FIRST] + begin
                if parts > 1:
                    for s in range(cells[u, WIDTH]):
                        made[at + p, OUTPUTS + s] = steps[b, OUTPUTS + s] + begin
                    for o in range(cells[u, OPERANDS]):
                        base: T.let = OUTPUTS + cells[u, WIDTH] + 2 * o
                        if steps[b, base + 1] != BROADCAST:
                            made[at + p, base] = steps[b, base] + begin
