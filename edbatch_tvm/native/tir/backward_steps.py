"""Backward passes as the tables that kernels read, from those of the forward pass; no graph is made on the way.

The same as the plan ``batch`` of the graph that :mod:`edbatch_tvm.training.backward_graph` makes. The names are those
of ``backward``: in each batch first what adds cotangents, then sections of adjoints one by one. Rows of the forward
pass have their numbers in the arenas of the backward pass.
"""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.graph.instance import FIRST_EXTERNAL, ZERO
from edbatch_tvm.memory.steps_table import COUNT, FIRST, OUTPUTS
from edbatch_tvm.memory.steps_table import TYPE as STEP_TYPE
from edbatch_tvm.native.backward_tables import (
    BACKWARD_ARENA,
    NEW_BATCHES,
    NEW_IO_SLOTS,
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
    FIXED,
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
from edbatch_tvm.native.tir.backward_reads import Rows, read_sections, read_sums
from edbatch_tvm.native.tir.buffers import Workspace, argument, constant, scalar, size
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T

_ANY = 1 << 30
"""Length of what ends where the memory does that it lies in."""


class BackwardPass:
    """Arguments and working storage of ``backward_steps``."""

    def __init__(
        self,
        m,
        node_type,
        operand_ptr,
        operand_value,
        order,
        batch_ptr,
        value_row,
        forward_steps,
        forward_index,
        output_arena,
        cells,
        operands,
        external_row,
        detached,
        given,
        sections,
        slots,
        reads,
        arenas,
        cotangents,
        new_cells,
        new_operands,
        new_arena,
        work,
        steps,
        rows,
        arena_rows,
        type_count,
        node_order,
        group_ptr,
        group_rows,
        node_rank,
        batch_at,
        external_use,
        external_of,
        io,
    ):
        self.m = m
        self.n, self.types, self.stride, self.most = size("n"), size("types"), size("stride"), size("most")
        self.outputs, self.a, self.new_types = size("outputs"), size("a"), size("new_types")
        self.columns = size("columns")
        operand_most, new_most, new_stride = size("operand_most"), size("new_most"), size("new_stride")
        n, types, a, t = self.n, self.types, self.a, self.new_types
        self.node_type = argument(node_type, (n,), "int16")
        self.operand_ptr = argument(operand_ptr, (n + 1,))
        self.operand_value = argument(operand_value, (size("entries"),))
        self.order = argument(order, (n,))
        self.batch_ptr = argument(batch_ptr, (m + 1,))
        self.value_row = argument(value_row, (n * self.stride,))
        self.forward_steps = argument(forward_steps, (m, size("forward_columns")))
        self.forward_index = argument(forward_index, (size("room_forward"),))
        self.output_arena = argument(output_arena, (types, self.stride))
        self.cells = argument(cells, (types, 5))
        self.operands = argument(operands, (types, operand_most, 4))
        self.external_row = argument(external_row, (size("rows"),))
        self.detached = argument(detached, (size("flags"),), "int8")
        self.given = argument(given, (size("room_given"),))
        self.sections = argument(sections, (types, self.most, 5))
        self.slots = argument(slots, (types, operand_most, 2))
        self.reads = argument(reads, (size("room_reads"), 5))
        self.arenas = argument(arenas, (a, 4))
        self.cotangents = argument(cotangents, (types, self.outputs))
        self.new_cells = argument(new_cells, (t, 5))
        self.new_operands = argument(new_operands, (t, new_most, 4))
        self.new_arena = argument(new_arena, (t, new_stride))
        self.width = a + self.most
        self.steps = argument(steps, (size("room_batches"), self.columns))
        # First the rows of cotangents, two for each output of a node, then the index.
        self.rows = argument(rows, (size("room_rows"),))
        self.arena_rows = argument(arena_rows, (size("specs"),))
        self.type_count = argument(type_count, (t,), "int64")
        self.node_order = argument(node_order, (n,))
        self.group_ptr = argument(group_ptr, (types + 1,))
        self.group_rows = argument(group_rows, (types,))
        self.node_rank = argument(node_rank, (n,))
        batch_at = argument(batch_at, (m, self.width))
        self.external_use = argument(external_use, (size("room_uses"),))
        self.external_of = argument(external_of, (size("room_of"),))
        self.io = argument(io, (NEW_IO_SLOTS,), "int64")
        cut = Workspace(work).cut
        self.batch_at = T.decl_buffer((m * self.width,), "int32", data=batch_at.data, elem_offset=0)
        outputs = self.outputs
        self.before_index = constant("before_index", 2 * n * outputs)
        self.cotangent_row = T.decl_buffer((self.before_index,), "int32", data=self.rows.data, elem_offset=0)
        self.index = T.decl_buffer((_ANY,), "int32", data=self.rows.data, elem_offset=self.before_index)
        self.active = cut("active", n)
        self.repeat = cut("repeat", n)  # variadic rows
        self.batch_of = cut("batch_of", n)  # counted from the last
        # The place of a node in its forward batch, and among those of the batch that have cotangents; where its
        # variadic rows begin among theirs.
        self.forward_seat = cut("forward_seat", n)
        self.seat = cut("seat", n)
        self.row_seat = cut("row_seat", n)
        # Of outputs, node after node: how many cotangents there are, and where in `rows` the next one goes.
        self.uses = cut("uses", n * outputs)
        self.next_at = cut("next_at", n * outputs)
        self.into = cut("into", self.operand_ptr[n] + 1)  # the output that an operand is, an external row, or -1
        self.count = cut("count", m * self.width)  # nodes of a new batch
        # Of forward batches: nodes with cotangents and their variadic rows, the first of them in node_order, whether
        # these are all nodes, in their order.
        self.live = cut("live", m)
        self.live_rows = cut("live_rows", m)
        self.first_node = cut("first_node", m)
        self.aligned = cut("aligned", m)
        self.next = cut("next", m)
        self.next_row = cut("next_row", m)
        self.counted = cut("counted", T.max(types, a))
        # Of new types: nodes and variadic rows, and how many of these are done; where the pieces of the index begin.
        self.done = cut("done", t)
        self.repeated = cut("repeated", t)
        self.rows_done = cut("rows_done", t)
        self.offsets_at = cut("offsets_at", t)
        self.piece_at = cut("piece_at", t, new_most)
        self.sum_type = cut("sum_type", a)  # by rank
        self.gradient = cut(
            "gradient", m, operand_most
        )  # of an operand of a batch the first row of its gradients, or -1
        # value * multiplier >> shift is the node of a value: a division takes longer.
        self.shift = scalar("shift", T.int64(0), "int64")
        self.multiplier = scalar("multiplier", T.int64(0), "int64")
        self.batches = scalar("batches", 0)
        self.filled = scalar("filled", 0)


def node_of(p, value):
    return T.Cast("int32", T.shift_right(T.Cast("int64", value) * p.multiplier, p.shift))


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
