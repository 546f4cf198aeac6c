"""Steps tables: large batches cut into pieces; the same as :mod:`edbatch_tvm.runtime.split_batches`."""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.memory.steps_table import BROADCAST, COUNT, FIRST, OUTPUTS, TYPE
from edbatch_tvm.native.cell_tables import OPERANDS, WIDTH
from edbatch_tvm.native.tir.buffers import argument, size
from edbatch_tvm.tvm_compat import script_tirx as T


@T.prim_func
def cut(
    steps_: T.handle,
    # How many pieces each batch is cut into.
    parts_: T.handle,
    cells_: T.handle,
    # Results: the steps of all pieces, and where those of each batch begin.
    made_: T.handle,
    first_: T.handle,
):
    T.func_attr({"tirx.noalias": True})
    m = T.int32()
    columns = T.int32()
    steps = T.meta_var(argument(steps_, (m, columns)))
    parts = T.meta_var(argument(parts_, (m,)))
    cells = T.meta_var(argument(cells_, (size("types"), 5)))
    made = T.meta_var(argument(made_, (size("pieces"), columns)))
    first = T.meta_var(argument(first_, (m + 1,)))

    at = 0
    for b in range(m):
        first[b] = at
        u: T.let = steps[b, TYPE]
        share: T.let = T.truncdiv(steps[b, COUNT], parts[b])
        larger: T.let = steps[b, COUNT] - share * parts[b]  # this many pieces have one node more than the others
        for p in range(parts[b]):
            begin: T.let = p * share + T.min(p, larger)
            for c in range(columns):
                made[at + p, c] = steps[b, c]
            made[at + p, COUNT] = share + T.Select(p < larger, 1, 0)
            made[at + p, FIRST] = steps[b, FIRST] + begin
            if parts[b] > 1:
                for s in range(cells[u, WIDTH]):
                    made[at + p, OUTPUTS + s] = steps[b, OUTPUTS + s] + begin
                for o in range(cells[u, OPERANDS]):
                    base: T.let = OUTPUTS + cells[u, WIDTH] + 2 * o
                    if steps[b, base + 1] != BROADCAST:
                        made[at + p, base] = steps[b, base] + begin
        at += parts[b]
    first[m] = at
