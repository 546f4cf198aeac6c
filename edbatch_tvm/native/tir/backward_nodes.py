"""Nodes that have cotangents, and how many nodes the batches of a backward pass have."""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.graph.instance import ZERO
from edbatch_tvm.native.backward_tables import PART, PER_ROW, RANK, SUM_TYPE, TYPE
from edbatch_tvm.native.cell_tables import FIXED, FIXED_BEFORE, OPERANDS, REPEATED, REPEATED_BEFORE, VARIADIC
from edbatch_tvm.native.tir.backward_pass import node_of
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T


@inlined
def clear(p, any_given):
    any_variadic = 0
    for t in range(p.types):
        p.counted[t] = 0
        p.group_rows[t] = 0
        any_variadic = T.max(any_variadic, p.cells[t, REPEATED])
    for v in range(p.n):
        u: T.let = T.Cast("int32", p.node_type[v])
        p.node_rank[v] = p.counted[u]
        p.counted[u] += 1
    for v in range(p.n):
        p.repeat[v] = 0
    if any_variadic > 0:
        for v in range(p.n):
            u: T.let = T.Cast("int32", p.node_type[v])
            if p.cells[u, REPEATED] > 0:
                spread: T.let = p.operand_ptr[v + 1] - p.operand_ptr[v] - p.cells[u, FIXED]
                p.repeat[v] = T.truncdiv(spread, p.cells[u, REPEATED])
    for t in range(p.types):
        p.counted[t] = 0
    for x in range(p.n * p.outputs):
        p.uses[x] = 0
        p.next_at[x] = 2 * x
    for x in range(2 * p.n * p.outputs):
        p.cotangent_row[x] = 0
    for i in range(p.m * p.width):
        p.count[i] = 0
    for t in range(p.new_types):
        p.repeated[t] = 0
        p.done[t] = 0
        p.rows_done[t] = 0
    for i in range(p.a):
        p.sum_type[p.arenas[i, RANK]] = p.arenas[i, SUM_TYPE]
    # Exact for values of n nodes: 2 ** shift is more than they times the stride, and nothing overflows.
    room: T.let = T.Cast("int64", p.n + 1) * T.Cast("int64", p.stride) * T.Cast("int64", p.stride)
    while T.shift_left(T.int64(1), p.shift) <= room:
        p.shift += T.int64(1)
    p.multiplier = T.truncdiv(T.shift_left(T.int64(1), p.shift), T.Cast("int64", p.stride)) + T.int64(1)
    for i in range(any_given):
        v: T.let = node_of(p, p.given[i])
        p.uses[v * p.outputs + p.given[i] - v * p.stride] = 1


@inlined
def count_batches(p, any_detached):
    # Nodes that have a cotangent, from the last batch on, and how many nodes the new batches of each have.
    for b in range(p.m):
        begin: T.let = p.batch_ptr[p.m - 1 - b]
        total: T.let = p.batch_ptr[p.m - b] - begin
        u: T.let = T.Cast("int32", p.node_type[p.order[begin]])
        live = 0
        rows = 0
        squares = 0
        for i in range(total):
            v: T.let = p.order[begin + i]
            p.batch_of[v] = b
            p.forward_seat[v] = i
            used = 0
            for k in range(p.outputs):
                used = used | p.uses[v * p.outputs + k]
            p.active[v] = T.Select(used > 0, 1, 0)
            if used > 0:
                live += 1
                rows += p.repeat[v]
                squares += p.repeat[v] * p.repeat[v]
        p.live[b] = live
        p.live_rows[b] = rows
        p.aligned[b] = T.Select(live == total, 1, 0)
        p.counted[u] += live
        p.group_rows[u] += rows
        for k in range(p.outputs):
            if p.cotangents[u, k] > 0:
                at: T.let = b * p.width + p.arenas[p.output_arena[u, k], RANK]
                adding: T.let = p.arenas[p.output_arena[u, k], SUM_TYPE]
                for i in range(total):
                    used: T.let = p.uses[p.order[begin + i] * p.outputs + k]
                    if used > p.cotangents[u, k]:
                        p.count[at] += 1
                        p.repeated[adding] += used
        if live > 0:
            for s in range(p.most):
                t: T.let = p.sections[u, s, TYPE]
                if t >= 0:
                    per_row: T.let = p.sections[u, s, PER_ROW] == 1
                    p.count[b * p.width + p.a + s] = T.Select(per_row, rows, live)
                    if p.new_cells[t, REPEATED] > 0:
                        p.repeated[t] += T.Select(per_row, squares, rows)
            for o in range(p.cells[u, OPERANDS]):
                if p.slots[u, o, PART] >= 0:
                    fixed: T.let = p.operands[u, o, FIXED_BEFORE]
                    if p.cells[u, REPEATED] == 0 and any_detached == 0:
                        for i in range(total):
                            v: T.let = p.order[begin + i]
                            if p.active[v] == 1:
                                mark_use(p, p.operand_ptr[v] + fixed)
                    else:
                        variadic: T.let = p.operands[u, o, VARIADIC] == 1
                        for i in range(total):
                            v: T.let = p.order[begin + i]
                            if p.active[v] == 1:
                                first: T.let = (
                                    p.operand_ptr[v] + fixed + p.repeat[v] * p.operands[u, o, REPEATED_BEFORE]
                                )
                                for j in range(T.Select(variadic, p.repeat[v], 1)):
                                    mark_use_unless_detached(p, first + j, any_detached)


@inlined
def mark_use(p, at):
    value: T.let = p.operand_value[at]
    p.into[at] = value  # an external row, or zero
    if value >= 0:
        node: T.let = node_of(p, value)
        x: T.let = node * p.outputs + value - node * p.stride
        p.into[at] = x
        p.uses[x] += 1


@inlined
def mark_use_unless_detached(p, at, any_detached):
    passed = 1
    if any_detached == 1:
        value: T.let = p.operand_value[at]
        if value >= 0:
            passed = T.Select(p.detached[node_of(p, value)] != T.int8(0), 0, 1)
    if passed == 1:
        mark_use(p, at)
    else:
        p.into[at] = ZERO
