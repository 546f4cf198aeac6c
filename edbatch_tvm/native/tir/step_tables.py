"""Memory plans: the tables that kernels read; the same as :mod:`edbatch_tvm.memory.plan_tables`.

`p` is the kernel's :class:`~edbatch_tvm.native.tir.buffers.PlanArguments`, `f` its :class:`Filling`.
"""

# ruff: noqa: D103
# mypy: ignore-errors

from typing import Any

from edbatch_tvm.memory.steps_table import BROADCAST, CONTIGUOUS, COUNT, FIRST, INDEXED, OUTPUTS, POINTER, TYPE
from edbatch_tvm.native.cell_tables import (
    BOUND,
    BYTES,
    FILLED,
    IO_SLOTS,
    LARGEST,
    LOOKUPS,
    MOST_ROWS,
    OPERANDS,
    REPEATED,
    ROW_BYTES,
    VARIADIC,
    WIDTH,
)
from edbatch_tvm.native.tir.arena_placement import put_batch_after_batch
from edbatch_tvm.native.tir.buffers import PlanArguments, Workspace, argument, scalar, size
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T


class Filling:
    """Results, working storage and scalars of ``fill``."""

    def __init__(
        self, p: PlanArguments, steps: Any, index: Any, value_row: Any, attribute_row: Any, io: Any, work: Any
    ) -> None:
        self.steps = argument(steps, (p.m, size("columns")))
        self.index = argument(index, (size("indices"),))
        self.value_row = argument(value_row, (p.n, p.slots))
        self.attribute_row = argument(attribute_row, (p.n,))
        self.io = argument(io, (IO_SLOTS,), "int64")
        cut = Workspace(work).cut
        self.flat_row = T.decl_buffer((p.n * p.slots,), "int32", data=self.value_row.data, elem_offset=0)
        self.rank = cut("rank", p.n)  # of a node among those of its type
        self.where = cut("where", p.n)  # operands of the nodes of one batch
        # Of types: nodes and variadic rows, where the attributes begin, and how many of these are done.
        self.count = cut("count", p.t)
        self.repeated = cut("repeated", p.t)
        self.start = cut("start", p.t)
        self.nodes_done = cut("nodes_done", p.t)
        self.rows_done = cut("rows_done", p.t)
        # Where the pieces of a type in the index begin: of its offsets, and of each operand.
        self.offsets_at = cut("offsets_at", p.t)
        self.piece_at = cut("piece_at", p.t, p.most)

        self.filled = scalar("filled", 0)  # length of the index
        # Of one operand of one batch.
        self.jumps = scalar("jumps", 0)  # rows that are not the one before plus one
        self.changes = scalar("changes", 0)  # rows that are not the one before
        self.before = scalar("before", 0)
        self.row = scalar("row", 0)
        # Of all batches.
        self.indexed_bytes = scalar("indexed_bytes", T.int64(0), "int64")
        self.lookups = scalar("lookups", 0)
        self.largest = scalar("largest", 0)
        self.most_rows = scalar("most_rows", 0)


@inlined
def count_nodes_and_rows(p, f, node_type):
    for u in range(p.t):
        f.count[u] = 0
        f.repeated[u] = 0
        f.nodes_done[u] = 0
        f.rows_done[u] = 0
    for v in range(p.n):
        u: T.let = T.Cast("int32", node_type[v])
        f.rank[v] = f.count[u]
        f.count[u] += 1
        if p.cells[u, REPEATED] > 0:
            f.repeated[u] += p.repeats(u, v)


@inlined
def divide_index(p, f):
    nodes_before = 0
    for u in range(p.t):
        f.start[u] = nodes_before
        nodes_before += f.count[u]
        if f.count[u] > 0:
            if p.cells[u, REPEATED] > 0:
                f.offsets_at[u] = f.filled
                f.index[f.filled] = 0
                f.filled += f.count[u] + 1
            for o in range(p.cells[u, OPERANDS]):
                f.piece_at[u, o] = f.filled
                f.filled += T.Select(p.operands[u, o, VARIADIC] == 1, f.repeated[u], f.count[u])


@inlined
def start_step(p, f, b, u, begin, size_of, done):
    # The step of batch b, but for its operands, and the rows of its nodes.
    f.lookups += p.cells[u, BOUND]
    f.largest = T.max(f.largest, size_of)
    f.steps[b, TYPE] = u
    f.steps[b, COUNT] = size_of
    f.steps[b, FIRST] = done
    f.steps[b, POINTER] = 0
    for s in range(p.cells[u, WIDTH]):
        f.steps[b, OUTPUTS + s] = p.base[b, s]
    attributes: T.let = f.start[u] + done
    for i in range(size_of):
        v: T.let = p.order[begin + i]
        f.where[i] = p.operand_ptr[v]
        f.attribute_row[attributes + i] = f.rank[v]
    for s in range(p.slots):
        head: T.let = p.base[b, s]
        for i in range(size_of):
            f.value_row[p.order[begin + i], s] = head + i


@inlined
def write_offsets(p, f, b, u, begin, size_of, done, rows_done):
    # Where the variadic rows of each node of batch b begin and end.
    f.steps[b, POINTER] = f.offsets_at[u] + done
    sum_of = rows_done
    for i in range(size_of):
        v: T.let = p.order[begin + i]
        sum_of += p.repeats(u, v)
        f.index[f.offsets_at[u] + done + i + 1] = sum_of
    f.rows_done[u] = sum_of
    f.most_rows = T.max(f.most_rows, sum_of - rows_done)


@inlined
def read_operand(p, f, u, o, size_of, done, rows_done, at):
    # The rows of operand o of a batch, into the index from `at` on.
    f.jumps = 0
    f.changes = 0
    f.before = 0
    if p.cells[u, REPEATED] == 0:
        for i in range(size_of):
            value: T.let = p.operand_value[f.where[i] + o]
            read_value(p, f, value, at + i)
    else:
        for i in range(size_of):
            low: T.let = f.index[f.offsets_at[u] + done + i]
            repeat: T.let = f.index[f.offsets_at[u] + done + i + 1] - low
            position: T.let = f.where[i] + p.position(u, o, repeat)
            if p.operands[u, o, VARIADIC] == 1:
                for j in range(repeat):
                    value: T.let = p.operand_value[position + j]
                    read_value(p, f, value, at + low - rows_done + j)
            else:
                value: T.let = p.operand_value[position]
                read_value(p, f, value, at + i)


@inlined
def read_value(p, f, value, at):
    # Write the row of `value` to the index and compare it with the row before.
    if value >= 0:
        f.row = f.flat_row[value]
    else:
        f.row = p.outside[-1 - value]
    f.index[at] = f.row
    if f.row != f.before + 1:
        f.jumps += 1
    if f.row != f.before:
        f.changes += 1
    f.before = f.row


@inlined
def classify_operand(p, f, b, u, o, from_type, at, total):
    # Whether the rows just read are contiguous, one for all, or have to be read through the index.
    head = 0
    if total > 0:
        # The first row has none before it.
        head = f.index[at]
        if head != 1:
            f.jumps -= 1
        if head != 0:
            f.changes -= 1
    column: T.let = OUTPUTS + p.cells[u, WIDTH] + 2 * o
    if f.jumps == 0:
        f.steps[b, column] = head - from_type
        f.steps[b, column + 1] = CONTIGUOUS
        f.io[0] += T.int64(1)
    elif f.changes == 0:
        f.steps[b, column] = head
        f.steps[b, column + 1] = BROADCAST
        f.io[1] += T.int64(1)
    else:
        f.steps[b, column] = at - from_type
        f.steps[b, column + 1] = INDEXED
        f.io[2] += T.int64(1)
        f.indexed_bytes += T.Cast("int64", total) * T.Cast("int64", p.operands[u, o, ROW_BYTES])


@T.prim_func
def fill(
    # 1: the blocks are put batch after batch here, into `base` and `arena_rows`; 0: they are given.
    stack: T.int32,
    output_arena_: T.handle,
    arena_rows_: T.handle,
    node_type_: T.handle,
    operand_ptr_: T.handle,
    operand_value_: T.handle,
    outside_: T.handle,
    order_: T.handle,
    batch_ptr_: T.handle,
    batch_type_: T.handle,
    base_: T.handle,
    cells_: T.handle,
    operands_: T.handle,
    work_: T.handle,
    steps_: T.handle,
    index_: T.handle,
    value_row_: T.handle,
    attribute_row_: T.handle,
    io_: T.handle,
):
    T.func_attr({"tirx.noalias": True})
    p = T.meta_var(
        PlanArguments(operand_ptr_, operand_value_, outside_, order_, batch_ptr_, batch_type_, base_, cells_, operands_)
    )
    node_type = T.meta_var(argument(node_type_, (p.n,), "int16"))
    output_arena = T.meta_var(argument(output_arena_, (p.t, p.slots)))
    arena_rows = T.meta_var(argument(arena_rows_, (size("arenas"),)))
    f = T.meta_var(Filling(p, steps_, index_, value_row_, attribute_row_, io_, work_))

    count_nodes_and_rows(p, f, node_type)
    divide_index(p, f)
    for i in range(3):
        f.io[i] = T.int64(0)
    if stack == 1:
        put_batch_after_batch(p.m, p.slots, p.batch_ptr, p.batch_type, output_arena, p.base, arena_rows)
    for b in range(p.m):
        u: T.let = T.Cast("int32", p.batch_type[b])
        begin: T.let = p.batch_ptr[b]
        size_of: T.let = p.batch_ptr[b + 1] - begin
        done: T.let = f.nodes_done[u]
        rows_done: T.let = f.rows_done[u]
        start_step(p, f, b, u, begin, size_of, done)
        if p.cells[u, REPEATED] > 0:
            write_offsets(p, f, b, u, begin, size_of, done, rows_done)
        f.nodes_done[u] = done + size_of
        for o in range(p.cells[u, OPERANDS]):
            is_variadic: T.let = p.operands[u, o, VARIADIC]
            from_type: T.let = T.Select(is_variadic == 1, rows_done, 0)
            at: T.let = f.piece_at[u, o] + T.Select(is_variadic == 1, rows_done, done)
            total: T.let = T.Select(is_variadic == 1, f.rows_done[u] - rows_done, size_of)
            read_operand(p, f, u, o, size_of, done, rows_done, at)
            classify_operand(p, f, b, u, o, from_type, at, total)
    f.io[BYTES] = f.indexed_bytes
    f.io[FILLED] = T.Cast("int64", f.filled)
    f.io[LOOKUPS] = T.Cast("int64", f.lookups)
    f.io[LARGEST] = T.Cast("int64", f.largest)
    f.io[MOST_ROWS] = T.Cast("int64", f.most_rows)
