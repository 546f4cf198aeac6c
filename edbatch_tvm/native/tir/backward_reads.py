"""Backward passes: the rows that batches read, in the steps table and the index.

`p` is the kernel's :class:`~edbatch_tvm.native.tir.backward_pass.BackwardPass`, `r` its :class:`Rows`.
"""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.graph.instance import FIRST_EXTERNAL, ZERO
from edbatch_tvm.memory.steps_table import BROADCAST, CONTIGUOUS, COUNT, FIRST, INDEXED, OUTPUTS, POINTER
from edbatch_tvm.memory.steps_table import TYPE as STEP_TYPE
from edbatch_tvm.native.backward_tables import (
    COTANGENT,
    EVERY_ROW,
    FIRST_READ,
    KIND,
    LAST_READ,
    NUMBER,
    OPERAND,
    OUTPUT,
    PART,
    PER_ROW,
    VALUE,
)
from edbatch_tvm.native.cell_tables import FIXED_BEFORE, REPEATED, REPEATED_BEFORE, ROW_BYTES, VARIADIC, WIDTH
from edbatch_tvm.native.tir.buffers import scalar
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T


class Rows:
    """Scalars of one operand of one batch, and of all."""

    def __init__(self) -> None:
        self.jumps = scalar("jumps", 0)  # rows that are not the one before plus one
        self.changes = scalar("changes", 0)  # rows that are not the one before
        self.before = scalar("before", 0)
        self.row = scalar("row", 0)
        self.taken = scalar("taken", 0)  # rows so far
        self.indexed_bytes = scalar("indexed_bytes", T.int64(0), "int64")
        self.most_rows = scalar("most_rows", 0)


@inlined
def next_row(r):
    # Compare a row with the one before.
    if r.row != r.before + 1:
        r.jumps += 1
    if r.row != r.before:
        r.changes += 1
    r.before = r.row


@inlined
def write_operand(p, r, c, t, o, from_type, at, total):
    # Operand o of batch c, whose rows are in the index: contiguous, one for all, or read through the index.
    column: T.let = OUTPUTS + p.new_cells[t, WIDTH] + 2 * o
    head = 0
    if total > 0:
        # The first row has none before it.
        head = p.index[at]
        if head != 1:
            r.jumps -= 1
        if head != 0:
            r.changes -= 1
    if r.jumps == 0:
        write_rows(p, c, column, head - from_type, CONTIGUOUS)
        p.io[0] += T.int64(1)
    elif r.changes == 0:
        write_rows(p, c, column, head, BROADCAST)
        p.io[1] += T.int64(1)
    else:
        write_rows(p, c, column, at - from_type, INDEXED)
        p.io[2] += T.int64(1)
        r.indexed_bytes += T.Cast("int64", total) * T.Cast("int64", p.new_operands[t, o, ROW_BYTES])


@inlined
def write_rows(p, c, column, base, stride):
    p.steps[c, column] = base
    p.steps[c, column + 1] = stride


@inlined
def begin_operand(r):
    r.jumps = 0
    r.changes = 0
    r.before = 0
    r.taken = 0


@inlined
def read_sums(p, r, b):
    # What adds cotangents: the rows are in the index already.
    for i in range(p.a):
        c: T.let = p.batch_at[b * p.width + i]
        if c >= 0:
            t: T.let = p.sum_type[i]
            pointer: T.let = p.offsets_at[t] + p.steps[c, FIRST]
            before: T.let = p.index[pointer]
            total: T.let = p.index[pointer + p.steps[c, COUNT]] - before
            at: T.let = p.piece_at[t, 0] + before
            p.steps[c, POINTER] = pointer
            r.most_rows = T.max(r.most_rows, total)
            begin_operand(r)
            for j in range(total):
                r.row = p.index[at + j]
                next_row(r)
            write_operand(p, r, c, t, 0, before, at, total)


@inlined
def read_sections(p, r, b):
    u: T.let = T.Cast("int32", p.node_type[p.order[p.batch_ptr[p.m - 1 - b]]])
    for s in range(p.most):
        c: T.let = p.batch_at[b * p.width + p.a + s]
        if c >= 0:
            t: T.let = p.steps[c, STEP_TYPE]
            per_row: T.let = p.sections[u, s, PER_ROW] == 1
            if p.new_cells[t, REPEATED] > 0:
                write_offsets(p, r, b, c, t, per_row)
            for q in range(p.sections[u, s, LAST_READ] - p.sections[u, s, FIRST_READ]):
                read_operand(p, r, b, c, t, u, q, p.sections[u, s, FIRST_READ] + q, per_row)


@inlined
def write_offsets(p, r, b, c, t, per_row):
    # Where the variadic rows of each node of a batch begin and end.
    pointer: T.let = p.offsets_at[t] + p.steps[c, FIRST]
    p.steps[c, POINTER] = pointer
    sum_of = p.index[pointer]
    before: T.let = p.index[pointer]
    done = 0
    for i in range(p.live[b]):
        v: T.let = p.node_order[p.first_node[b] + i]
        for _j in range(T.Select(per_row, p.repeat[v], 1)):
            sum_of += p.repeat[v]
            done += 1
            p.index[pointer + done] = sum_of
    r.most_rows = T.max(r.most_rows, sum_of - before)


@inlined
def read_operand(p, r, b, c, t, u, q, read, per_row):
    # Operand q of batch c, which is a section of the adjoints of nodes of type u.
    kind: T.let = p.reads[read, KIND]
    number: T.let = p.reads[read, NUMBER]
    every: T.let = p.reads[read, EVERY_ROW] == 1
    column: T.let = OUTPUTS + p.new_cells[t, WIDTH] + 2 * q
    forward: T.let = p.m - 1 - b
    rows_before = 0
    total = p.steps[c, COUNT]
    if every:
        pointer: T.let = p.offsets_at[t] + p.steps[c, FIRST]
        rows_before = p.index[pointer]
        total = p.index[pointer + p.steps[c, COUNT]] - rows_before
    at: T.let = p.piece_at[t, q] + T.Select(every, rows_before, p.steps[c, FIRST])
    begin_operand(r)
    if per_row or every:
        read_each(p, r, b, u, read, per_row, every, at)
        write_operand(p, r, c, t, q, rows_before, at, total)
    elif kind == VALUE and p.aligned[b] == 1:
        write_rows(p, c, column, p.forward_steps[forward, OUTPUTS + number], CONTIGUOUS)
        p.io[0] += T.int64(1)
    elif kind == OPERAND and p.aligned[b] == 1 and p.operands[u, T.Select(kind == OPERAND, number, 0), VARIADIC] == 0:
        # As the forward batch reads it.
        there: T.let = OUTPUTS + p.cells[u, WIDTH] + 2 * number
        base: T.let = p.forward_steps[forward, there]
        stride: T.let = p.forward_steps[forward, there + 1]
        if stride == INDEXED:
            for i in range(total):
                p.index[at + i] = p.forward_index[base + i]
            write_rows(p, c, column, at, INDEXED)
            p.io[2] += T.int64(1)
            r.indexed_bytes += T.Cast("int64", total) * T.Cast("int64", p.new_operands[t, q, ROW_BYTES])
        else:
            write_rows(p, c, column, base, stride)
            p.io[T.Select(stride == CONTIGUOUS, 0, 1)] += T.int64(1)
    elif kind == COTANGENT:
        part: T.let = p.reads[read, PART]
        for i in range(total):
            v: T.let = p.node_order[p.first_node[b] + i]
            r.row = p.cotangent_row[2 * (v * p.outputs + number) + part]
            p.index[at + i] = r.row
            next_row(r)
        write_operand(p, r, c, t, q, 0, at, total)
    elif kind == OUTPUT and p.sections[u, T.Select(kind == OUTPUT, p.reads[read, PART], 0), PER_ROW] == 0:
        other: T.let = p.batch_at[b * p.width + p.a + p.reads[read, PART]]
        write_rows(p, c, column, p.steps[other, OUTPUTS + number], CONTIGUOUS)
        p.io[0] += T.int64(1)
    else:
        read_each(p, r, b, u, read, per_row, every, at)
        write_operand(p, r, c, t, q, 0, at, total)


@inlined
def read_each(p, r, b, u, read, per_row, every, at):
    # The rows of an operand of any kind, one by one.
    kind: T.let = p.reads[read, KIND]
    number: T.let = p.reads[read, NUMBER]
    part: T.let = p.reads[read, PART]
    of_rows = 0  # whether the source has a row for each variadic row
    base = 0
    if kind == OPERAND:
        of_rows = p.operands[u, number, VARIADIC]
    if kind == OUTPUT:
        of_rows = p.sections[u, part, PER_ROW]
        other: T.let = p.batch_at[b * p.width + p.a + part]
        if other >= 0:
            base = p.steps[other, OUTPUTS + number]
    for i in range(p.live[b]):
        v: T.let = p.node_order[p.first_node[b] + i]
        for k in range(T.Select(per_row, p.repeat[v], 1)):
            for j in range(T.Select(every, p.repeat[v], 1)):
                place: T.let = T.Select(of_rows == 1, T.Select(every, j, k), 0)
                r.row = 0
                if kind == OPERAND:
                    read_forward(p, r, u, v, number, place)
                elif kind == VALUE:
                    r.row = p.value_row[v * p.stride + number]
                elif kind == COTANGENT:
                    r.row = p.cotangent_row[2 * (v * p.outputs + number) + part]
                else:
                    r.row = base + T.Select(of_rows == 1, p.row_seat[v] + place, p.seat[v])
                p.index[at + r.taken] = r.row
                r.taken += 1
                next_row(r)


@inlined
def read_forward(p, r, u, v, number, place):
    # The row of an operand of the forward node.
    before: T.let = p.operands[u, number, FIXED_BEFORE] + p.repeat[v] * p.operands[u, number, REPEATED_BEFORE]
    value: T.let = p.operand_value[p.operand_ptr[v] + before + place]
    if value >= 0:
        r.row = p.value_row[value]
    elif value != ZERO:
        r.row = 1 + p.external_row[FIRST_EXTERNAL - value]
