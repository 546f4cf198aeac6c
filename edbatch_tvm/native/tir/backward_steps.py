"""Backward passes as the tables that kernels read, from those of the forward pass; no graph is made on the way.

The same as the plan ``batch`` of the graph that :mod:`edbatch_tvm.training.backward_graph` makes. The names are those
of ``backward``: in each batch first what adds cotangents, then sections of adjoints one by one. Rows of the forward
pass have their numbers in the arenas of the backward pass.
"""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.graph.instance import FIRST_EXTERNAL
from edbatch_tvm.memory.steps_table import COUNT, FIRST, OUTPUTS
from edbatch_tvm.memory.steps_table import TYPE as STEP_TYPE
from edbatch_tvm.native.backward_tables import (
    BACKWARD_ARENA,
    NEW_BATCHES,
    NEW_USES,
    NUMBER,
    PART,
    PER_ROW,
    RANK,
    ROWS,
    SUM_TYPE,
    TYPE,
)
from edbatch_tvm.native.cell_tables import (
    BOUND,
    BYTES,
    FILLED,
    FIXED_BEFORE,
    LARGEST,
    LOOKUPS,
    MOST_ROWS,
    OPERANDS,
    REPEATED,
    REPEATED_BEFORE,
    VARIADIC,
    WIDTH,
)
from edbatch_tvm.native.tir.backward_nodes import clear, count_batches
from edbatch_tvm.native.tir.backward_pass import BackwardPass, node_of
from edbatch_tvm.native.tir.backward_reads import Rows, read_sections, read_sums
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T


@inlined
def place_batches(p, specs, any_given):
    # The new batches, where their results lie, and where the pieces of the index begin.
    for i in range(specs):
        p.arena_rows[i] = 1
    for i in range(p.a):
        if p.arenas[i, BACKWARD_ARENA] >= 0:
            p.arena_rows[p.arenas[i, BACKWARD_ARENA]] += p.arenas[i, ROWS]
    for i in range(any_given):
        v: T.let = node_of(p, p.given[i])
        arena: T.let = p.output_arena[T.Cast("int32", p.node_type[v]), p.given[i] - v * p.stride]
        p.arena_rows[p.arenas[arena, BACKWARD_ARENA]] += 1
    largest = 0
    lookups = 0
    for b in range(p.m):
        u: T.let = T.Cast("int32", p.node_type[p.order[p.batch_ptr[p.m - 1 - b]]])
        for i in range(p.width):
            nodes: T.let = p.count[b * p.width + i]
            p.batch_at[b * p.width + i] = -1
            if nodes > 0:
                c: T.let = p.batches
                t = p.sum_type[T.min(i, p.a - 1)]
                if i >= p.a:
                    t = p.sections[u, i - p.a, TYPE]
                p.batch_at[b * p.width + i] = c
                for column in range(p.columns):
                    p.steps[c, column] = 0
                p.steps[c, STEP_TYPE] = t
                p.steps[c, COUNT] = nodes
                p.steps[c, FIRST] = p.done[t]
                p.done[t] += nodes
                for s in range(p.new_cells[t, WIDTH]):
                    p.steps[c, OUTPUTS + s] = p.arena_rows[p.new_arena[t, s]]
                    p.arena_rows[p.new_arena[t, s]] += nodes
                lookups += p.new_cells[t, BOUND]
                largest = T.max(largest, nodes)
                p.batches += 1
    for t in range(p.new_types):
        p.type_count[t] = T.Cast("int64", p.done[t])
        if p.done[t] > 0:
            if p.new_cells[t, REPEATED] > 0:
                p.offsets_at[t] = p.filled
                p.index[p.filled] = 0
                p.filled += p.done[t] + 1
            for o in range(p.new_cells[t, OPERANDS]):
                p.piece_at[t, o] = p.filled
                p.filled += T.Select(p.new_operands[t, o, VARIADIC] == 1, p.repeated[t], p.done[t])
        p.done[t] = 0
    p.io[LOOKUPS] = T.Cast("int64", lookups)
    p.io[LARGEST] = T.Cast("int64", largest)


@inlined
def seat_nodes(p):
    # The nodes that have cotangents, type by type and batch by batch, in their order.
    nodes = 0
    for t in range(p.types):
        count: T.let = p.counted[t]
        p.group_ptr[t] = nodes
        p.counted[t] = nodes
        nodes += count
    p.group_ptr[p.types] = nodes
    for b in range(p.m):
        u: T.let = T.Cast("int32", p.node_type[p.order[p.batch_ptr[p.m - 1 - b]]])
        p.first_node[b] = p.counted[u]
        p.counted[u] += p.live[b]
        p.next[b] = 0
        p.next_row[b] = 0
    for v in range(p.n):
        if p.active[v] == 1:
            b: T.let = p.batch_of[v]
            seat: T.let = p.next[b]
            p.node_order[p.first_node[b] + seat] = v
            p.seat[v] = seat
            p.next[b] = seat + 1
            p.row_seat[v] = p.next_row[b]
            p.next_row[b] += p.repeat[v]
            if seat != p.forward_seat[v]:
                p.aligned[b] = 0


@inlined
def place_sums(p):
    # Where the cotangents lie that are added, and where their sums.
    for b in range(p.m):
        u: T.let = T.Cast("int32", p.node_type[p.order[p.batch_ptr[p.m - 1 - b]]])
        sums = 0
        for i in range(p.a):
            sums += p.count[b * p.width + i]
            p.count[b * p.width + i] = 0
        if sums > 0:
            for i in range(p.live[b]):
                v: T.let = p.node_order[p.first_node[b] + i]
                for k in range(p.outputs):
                    x: T.let = v * p.outputs + k
                    if p.uses[x] > p.cotangents[u, k]:
                        at: T.let = b * p.width + p.arenas[p.output_arena[u, k], RANK]
                        t: T.let = p.arenas[p.output_arena[u, k], SUM_TYPE]
                        p.cotangent_row[2 * x] = p.steps[p.batch_at[at], OUTPUTS] + p.count[at]
                        p.count[at] += 1
                        p.next_at[x] = p.before_index + p.piece_at[t, 0] + p.rows_done[t]
                        p.rows_done[t] += p.uses[x]
                        p.done[t] += 1
                        p.index[p.offsets_at[t] + p.done[t]] = p.rows_done[t]


@inlined
def add_row(p, x, row):
    # One more cotangent of an output.
    p.rows[p.next_at[x]] = row
    p.next_at[x] += 1


@inlined
def collect_cotangents(p, any_given):
    # First those that are given, then those of users in the order of users and of their operands.
    for i in range(p.a):
        p.counted[i] = 1 + p.arenas[i, ROWS]
    for i in range(any_given):
        v: T.let = node_of(p, p.given[i])
        arena: T.let = p.output_arena[T.Cast("int32", p.node_type[v]), p.given[i] - v * p.stride]
        add_row(p, v * p.outputs + p.given[i] - v * p.stride, p.counted[arena])
        p.counted[arena] += 1
    for b in range(p.m):
        u: T.let = T.Cast("int32", p.node_type[p.order[p.batch_ptr[p.m - 1 - b]]])
        for o in range(p.cells[u, OPERANDS]):
            p.gradient[b, o] = -1
            if p.live[b] > 0 and p.slots[u, o, PART] >= 0:
                c: T.let = p.batch_at[b * p.width + p.a + p.slots[u, o, PART]]
                if c >= 0:
                    p.gradient[b, o] = p.steps[c, OUTPUTS + p.slots[u, o, NUMBER]]
    outer_uses = 0
    for v in range(p.n):
        if p.active[v] == 1:
            u: T.let = T.Cast("int32", p.node_type[v])
            b: T.let = p.batch_of[v]
            if p.cells[u, REPEATED] == 0:
                for o in range(p.cells[u, OPERANDS]):
                    if p.gradient[b, o] >= 0:
                        x: T.let = p.into[p.operand_ptr[v] + p.operands[u, o, FIXED_BEFORE]]
                        row: T.let = p.gradient[b, o] + p.seat[v]
                        if x >= 0:
                            add_row(p, x, row)
                        elif x <= FIRST_EXTERNAL:
                            p.external_use[outer_uses] = row
                            p.external_of[outer_uses] = FIRST_EXTERNAL - x
                            outer_uses += 1
            else:
                for o in range(p.cells[u, OPERANDS]):
                    if p.gradient[b, o] >= 0:
                        of_rows: T.let = p.sections[u, p.slots[u, o, PART], PER_ROW] == 1
                        variadic: T.let = p.operands[u, o, VARIADIC] == 1
                        step: T.let = T.Select(of_rows and variadic, 1, 0)
                        row: T.let = p.gradient[b, o] + T.Select(of_rows, p.row_seat[v], p.seat[v])
                        before: T.let = p.operands[u, o, FIXED_BEFORE] + p.repeat[v] * p.operands[u, o, REPEATED_BEFORE]
                        for j in range(T.Select(variadic, p.repeat[v], 1)):
                            x: T.let = p.into[p.operand_ptr[v] + before + j]
                            if x >= 0:
                                add_row(p, x, row + j * step)
                            elif x <= FIRST_EXTERNAL:
                                p.external_use[outer_uses] = row + j * step
                                p.external_of[outer_uses] = FIRST_EXTERNAL - x
                                outer_uses += 1
    p.io[NEW_USES] = T.Cast("int64", outer_uses)


@T.prim_func
def backward_steps(
    m: T.int32,  # forward batches
    any_given: T.int32,
    any_detached: T.int32,
    specs: T.int32,  # arenas of the backward pass
    # The forward graph, its schedule and plan.
    node_type_: T.handle,
    operand_ptr_: T.handle,
    operand_value_: T.handle,
    order_: T.handle,
    batch_ptr_: T.handle,
    value_row_: T.handle,
    forward_steps_: T.handle,
    forward_index_: T.handle,
    output_arena_: T.handle,
    cells_: T.handle,
    operands_: T.handle,
    external_row_: T.handle,
    detached_: T.handle,
    # The values whose cotangents are given.
    given_: T.handle,
    # Of types; see backward_tables.py.
    sections_: T.handle,
    slots_: T.handle,
    reads_: T.handle,
    arenas_: T.handle,
    cotangents_: T.handle,
    # The cells of the backward pass.
    new_cells_: T.handle,
    new_operands_: T.handle,
    new_arena_: T.handle,
    work_: T.handle,
    # Results; see BackwardSteps.
    steps_: T.handle,
    rows_: T.handle,
    arena_rows_: T.handle,
    type_count_: T.handle,
    node_order_: T.handle,
    group_ptr_: T.handle,
    group_rows_: T.handle,
    node_rank_: T.handle,
    batch_at_: T.handle,
    external_use_: T.handle,
    external_of_: T.handle,
    io_: T.handle,
):
    T.func_attr({"tirx.noalias": True})
    p = T.meta_var(
        BackwardPass(
            m,
            node_type_,
            operand_ptr_,
            operand_value_,
            order_,
            batch_ptr_,
            value_row_,
            forward_steps_,
            forward_index_,
            output_arena_,
            cells_,
            operands_,
            external_row_,
            detached_,
            given_,
            sections_,
            slots_,
            reads_,
            arenas_,
            cotangents_,
            new_cells_,
            new_operands_,
            new_arena_,
            work_,
            steps_,
            rows_,
            arena_rows_,
            type_count_,
            node_order_,
            group_ptr_,
            group_rows_,
            node_rank_,
            batch_at_,
            external_use_,
            external_of_,
            io_,
        )
    )
    r = T.meta_var(Rows())
    clear(p, any_given)
    count_batches(p, any_detached)
    place_batches(p, specs, any_given)
    seat_nodes(p)
    place_sums(p)
    collect_cotangents(p, any_given)
    for i in range(3):
        p.io[i] = T.int64(0)
    for b in range(p.m):
        read_sums(p, r, b)
        read_sections(p, r, b)
    p.io[BYTES] = r.indexed_bytes
    p.io[MOST_ROWS] = T.Cast("int64", r.most_rows)
    p.io[FILLED] = T.Cast("int64", p.filled)
    p.io[NEW_BATCHES] = T.Cast("int64", p.batches)
