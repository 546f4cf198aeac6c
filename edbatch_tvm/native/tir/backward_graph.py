"""The backward graph of a minibatch; the same as :mod:`edbatch_tvm.training.backward_graph`.

Nodes of the backward graph are called *places* here: in each batch first what adds cotangents, then sections of
adjoints one by one.
"""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.graph.instance import FIRST_EXTERNAL, ZERO
from edbatch_tvm.native.backward_tables import (
    BACKWARD_ARENA,
    BATCHES,
    COTANGENT,
    EVERY_ROW,
    EXTERNAL_USES,
    FIRST_READ,
    KIND,
    LAST_READ,
    NUMBER,
    OPERAND,
    PART,
    PER_ROW,
    PLACES,
    RANK,
    READ_ARENA,
    ROWS,
    SIMPLE,
    SUM_TYPE,
    TYPE,
    VALUE,
)
from edbatch_tvm.native.cell_tables import FIXED, FIXED_BEFORE, OPERANDS, REPEATED, REPEATED_BEFORE, VARIADIC
from edbatch_tvm.native.tir.buffers import Workspace, argument, size
from edbatch_tvm.tvm_compat import script_tirx as T


@T.prim_func
def backward(
    out_stride: T.int32,
    m: T.int32,  # forward batches
    givens: T.int32,
    any_detached: T.int32,
    specs: T.int32,  # arenas of the backward graph
    # The forward graph, its schedule and plan.
    node_type_: T.handle,
    operand_ptr_: T.handle,
    operand_value_: T.handle,
    order_: T.handle,
    batch_ptr_: T.handle,
    value_row_: T.handle,
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
    work_: T.handle,
    # Results: the backward graph and its batches; the cotangents of all outputs; of forward nodes the first place of
    # each section, and how many of the type come before; all that have cotangents, type by type, the last batch first,
    # where each type begins among them, and its variadic rows; gradients of external rows.
    place_type_: T.handle,
    place_ptr_: T.handle,
    place_operand_: T.handle,
    place_spec_: T.handle,
    place_row_: T.handle,
    new_batch_ptr_: T.handle,
    cotangent_: T.handle,
    place_of_: T.handle,
    node_rank_: T.handle,
    node_order_: T.handle,
    group_ptr_: T.handle,
    group_rows_: T.handle,
    external_use_: T.handle,
    external_of_: T.handle,
    io_: T.handle,
):
    T.func_attr({"tirx.noalias": True})
    n = T.int32()
    types = T.int32()
    stride = T.int32()
    most = T.int32()
    operand_most = T.int32()
    outputs = T.int32()
    a = T.int32()
    node_type = T.meta_var(argument(node_type_, (n,), "int16"))
    operand_ptr = T.meta_var(argument(operand_ptr_, (n + 1,)))
    operand_value = T.meta_var(argument(operand_value_, (size("entries"),)))
    order = T.meta_var(argument(order_, (n,)))
    batch_ptr = T.meta_var(argument(batch_ptr_, (m + 1,)))
    value_row = T.meta_var(argument(value_row_, (n * stride,)))
    output_arena = T.meta_var(argument(output_arena_, (types, stride)))
    cells = T.meta_var(argument(cells_, (types, 5)))
    operands = T.meta_var(argument(operands_, (types, operand_most, 4)))
    external_row = T.meta_var(argument(external_row_, (size("rows"),)))
    detached = T.meta_var(argument(detached_, (size("flags"),), "int8"))
    given = T.meta_var(argument(given_, (size("room_given"),)))
    sections = T.meta_var(argument(sections_, (types, most, 5)))
    slots = T.meta_var(argument(slots_, (types, operand_most, 2)))
    reads = T.meta_var(argument(reads_, (size("room_reads"), 5)))
    arenas = T.meta_var(argument(arenas_, (a, 4)))
    cotangents = T.meta_var(argument(cotangents_, (types, outputs)))
    place_type = T.meta_var(argument(place_type_, (size("room_places"),), "int16"))
    place_ptr = T.meta_var(argument(place_ptr_, (size("room_ptr"),)))
    place_operand = T.meta_var(argument(place_operand_, (size("room_operands"),)))
    place_spec = T.meta_var(argument(place_spec_, (size("room_specs"),), "int16"))
    place_row = T.meta_var(argument(place_row_, (size("room_rows"),)))
    new_batch_ptr = T.meta_var(argument(new_batch_ptr_, (size("room_batches"),)))
    cotangent_of = T.meta_var(argument(cotangent_, (n, outputs, 2)))
    place_of = T.meta_var(argument(place_of_, (n, most)))
    node_rank = T.meta_var(argument(node_rank_, (n,)))
    node_order = T.meta_var(argument(node_order_, (n,)))
    group_ptr = T.meta_var(argument(group_ptr_, (types + 1,)))
    group_rows = T.meta_var(argument(group_rows_, (types,)))
    external_use = T.meta_var(argument(external_use_, (size("room_uses"),)))
    external_of = T.meta_var(argument(external_of_, (size("room_of"),)))
    io = T.meta_var(argument(io_, (3,), "int64"))
    work = T.meta_var(Workspace(work_))
    cotangent = T.meta_var(T.decl_buffer((n * outputs * 2,), "int32", data=cotangent_of.data, elem_offset=0))
    width: T.let = a + most
    active = T.meta_var(work.cut("active", n))
    repeat = T.meta_var(work.cut("repeat", n))  # variadic rows
    batch_of = T.meta_var(work.cut("batch_of", n))  # counted from the last
    # Of outputs, node after node: how many cotangents there are, the place that adds them, how many it has so far.
    uses = T.meta_var(work.cut("uses", n * outputs))
    sum_of = T.meta_var(work.cut("sum_of", n * outputs))
    added = T.meta_var(work.cut("added", n * outputs))
    first = T.meta_var(work.cut("first", m * width))  # of the places of a batch, and of an arena or a section
    first_node = T.meta_var(work.cut("first_node", m))  # of a batch, in node_order
    counted = T.meta_var(work.cut("counted", T.max(types, a)))
    outside = T.meta_var(work.cut("outside", specs))  # the external row that is row 1 of an arena
    given_node = T.meta_var(work.cut("given_node", givens))
    given_output = T.meta_var(work.cut("given_output", givens))
    slot = T.meta_var(work.cut("slot", operand_ptr[n] + 1))  # the operand whose gradient is used, or -1
    into = T.meta_var(work.cut("into", operand_ptr[n] + 1))  # the output that an operand is
    names = T.meta_var(work.cut("names", operand_ptr[n] + 1))  # what a section reads of a node

    for t in range(types):
        counted[t] = 0
    for v in range(n):
        u: T.let = T.Cast("int32", node_type[v])
        node_rank[v] = counted[u]
        counted[u] += 1
        active[v] = 0
        repeat[v] = 0
        if cells[u, REPEATED] > 0:
            repeat[v] = T.truncdiv(operand_ptr[v + 1] - operand_ptr[v] - cells[u, FIXED], cells[u, REPEATED])
    for x in range(n * outputs):
        uses[x] = 0
        added[x] = 0
    for x in range(n * outputs * 2):
        cotangent[x] = ZERO
    for t in range(types):
        counted[t] = 0
        group_rows[t] = 0
    for i in range(m * width):
        first[i] = 0
    for i in range(givens):
        v: T.let = T.truncdiv(given[i], stride)
        given_node[i] = v
        given_output[i] = v * outputs + given[i] - v * stride
        active[v] = 1
        uses[given_output[i]] = 1
    # Nodes that have a cotangent, from the last batch on; how many places each batch has, of which kind: first what
    # adds cotangents, by type, then sections.
    for b in range(m):
        first_node[b] = 0
        u: T.let = T.Cast("int32", node_type[order[batch_ptr[m - 1 - b]]])
        for i in range(batch_ptr[m - b] - batch_ptr[m - 1 - b]):
            v: T.let = order[batch_ptr[m - 1 - b] + i]
            batch_of[v] = b
            for k in range(outputs):
                if uses[v * outputs + k] > cotangents[u, k]:
                    first[b * width + arenas[output_arena[u, k], RANK]] += 1
            if active[v] == 1:
                counted[u] += 1
                group_rows[u] += repeat[v]
                first_node[b] += 1
                for s in range(most):
                    if sections[u, s, TYPE] >= 0:
                        first[b * width + a + s] += T.Select(sections[u, s, PER_ROW] == 1, repeat[v], 1)
            for o in range(cells[u, OPERANDS]):
                begin: T.let = (
                    operand_ptr[v] + operands[u, o, FIXED_BEFORE] + repeat[v] * operands[u, o, REPEATED_BEFORE]
                )
                for j in range(T.Select(operands[u, o, VARIADIC] == 1, repeat[v], 1)):
                    value: T.let = operand_value[begin + j]
                    slot[begin + j] = -1
                    if active[v] == 1 and slots[u, o, PART] >= 0 and value != ZERO:
                        slot[begin + j] = o
                        if value >= 0:
                            node: T.let = T.truncdiv(value, stride)
                            into[begin + j] = node * outputs + value - node * stride
                            if any_detached == 1:
                                slot[begin + j] = T.Select(detached[node] != T.int8(0), -1, o)
                            if slot[begin + j] >= 0:
                                active[node] = 1
                                uses[into[begin + j]] += 1

    # Places: a counting sort by batch.
    places = 0
    batches = 0
    for i in range(m * width):
        count: T.let = first[i]
        first[i] = places
        if count > 0:
            new_batch_ptr[batches] = places
            batches += 1
            places += count
    new_batch_ptr[batches] = places
    nodes = 0
    for t in range(types):
        count: T.let = counted[t]
        group_ptr[t] = nodes
        counted[t] = nodes
        nodes += count
    group_ptr[types] = nodes
    for b in range(m):
        u: T.let = T.Cast("int32", node_type[order[batch_ptr[m - 1 - b]]])
        count: T.let = first_node[b]
        first_node[b] = counted[u]
        counted[u] += count
    # The numbers of places, types, and first how many operands each has.
    for v in range(n):
        u: T.let = T.Cast("int32", node_type[v])
        for k in range(outputs):
            x: T.let = v * outputs + k
            sum_of[x] = -1
            if uses[x] > cotangents[u, k]:
                arena: T.let = output_arena[u, k]
                i: T.let = batch_of[v] * width + arenas[arena, RANK]
                sum_of[x] = first[i]
                place_ptr[first[i]] = uses[x]
                place_type[first[i]] = T.Cast("int16", arenas[arena, SUM_TYPE])
                cotangent[2 * x] = first[i] * out_stride
                first[i] += 1
        for s in range(most):
            place_of[v, s] = -1
        if active[v] == 1:
            node_order[first_node[batch_of[v]]] = v
            first_node[batch_of[v]] += 1
            for s in range(most):
                if sections[u, s, TYPE] >= 0:
                    i: T.let = batch_of[v] * width + a + s
                    place_of[v, s] = first[i]
                    length = sections[u, s, LAST_READ] - sections[u, s, FIRST_READ]
                    if sections[u, s, SIMPLE] == 0:
                        length = 0
                        for r in range(sections[u, s, LAST_READ] - sections[u, s, FIRST_READ]):
                            length += T.Select(reads[sections[u, s, FIRST_READ] + r, EVERY_ROW] == 1, repeat[v], 1)
                    for _j in range(T.Select(sections[u, s, PER_ROW] == 1, repeat[v], 1)):
                        place_ptr[first[i]] = length
                        place_type[first[i]] = T.Cast("int16", sections[u, s, TYPE])
                        first[i] += 1
    total = 0
    for p in range(places):
        count: T.let = place_ptr[p]
        place_ptr[p] = total
        total += count
    place_ptr[places] = total

    # External rows: of each arena those of the forward pass, then the cotangents that were given.
    for i in range(a):
        counted[i] = arenas[i, ROWS]
    for i in range(givens):
        v: T.let = given_node[i]
        counted[output_arena[T.Cast("int32", node_type[v]), given_output[i] - v * outputs]] += 1
    for i in range(specs):
        outside[i] = 0
    for i in range(a):
        if arenas[i, BACKWARD_ARENA] >= 0:
            outside[arenas[i, BACKWARD_ARENA]] = counted[i]
    external = 0
    for i in range(specs):
        count: T.let = outside[i]
        outside[i] = external
        for j in range(count):
            place_spec[external + j] = T.Cast("int16", i)
            place_row[external + j] = j
        external += count
    for i in range(a):
        counted[i] = arenas[i, ROWS]
    for i in range(givens):
        v: T.let = given_node[i]
        x: T.let = given_output[i]
        arena: T.let = output_arena[T.Cast("int32", node_type[v]), x - v * outputs]
        name: T.let = FIRST_EXTERNAL - outside[arenas[arena, BACKWARD_ARENA]] - counted[arena]
        counted[arena] += 1
        if sum_of[x] >= 0:
            place_operand[place_ptr[sum_of[x]]] = name
        else:
            cotangent[2 * x] = name
        added[x] = 1

    # Who contributes to which cotangent, in the order of users and of their operands.
    outer_uses = 0
    for v in range(n):
        u: T.let = T.Cast("int32", node_type[v])
        for o in range(cells[u, OPERANDS]):
            begin: T.let = operand_ptr[v] + operands[u, o, FIXED_BEFORE] + repeat[v] * operands[u, o, REPEATED_BEFORE]
            part: T.let = T.max(slots[u, o, PART], 0)
            step: T.let = T.Select(operands[u, o, VARIADIC] == 1 and sections[u, part, PER_ROW] == 1, 1, 0)
            for j in range(T.Select(operands[u, o, VARIADIC] == 1, repeat[v], 1)):
                if slot[begin + j] >= 0:
                    value: T.let = operand_value[begin + j]
                    gradient: T.let = (place_of[v, part] + j * step) * out_stride + slots[u, o, NUMBER]
                    if value < 0:
                        external_use[outer_uses] = gradient
                        external_of[outer_uses] = FIRST_EXTERNAL - value
                        outer_uses += 1
                    else:
                        x: T.let = into[begin + j]
                        if sum_of[x] >= 0:
                            place_operand[place_ptr[sum_of[x]] + added[x]] = gradient
                        else:
                            cotangent[2 * x + added[x]] = gradient
                        added[x] += 1

    # What sections read; rows of the forward pass are external rows.
    for u in range(types):
        for s in range(most):
            for q in range(sections[u, s, LAST_READ] - sections[u, s, FIRST_READ]):
                if sections[u, s, SIMPLE] == 1:
                    r: T.let = sections[u, s, FIRST_READ] + q
                    number: T.let = reads[r, NUMBER]
                    part: T.let = reads[r, PART]
                    if reads[r, KIND] == VALUE:
                        name: T.let = FIRST_EXTERNAL + 1 - outside[reads[r, READ_ARENA]]
                        for i in range(group_ptr[u + 1] - group_ptr[u]):
                            v: T.let = node_order[group_ptr[u] + i]
                            place_operand[place_ptr[place_of[v, s]] + q] = name - value_row[v * stride + number]
                    elif reads[r, KIND] == OPERAND:
                        name: T.let = FIRST_EXTERNAL - outside[reads[r, READ_ARENA]]
                        for i in range(group_ptr[u + 1] - group_ptr[u]):
                            v: T.let = node_order[group_ptr[u] + i]
                            begin: T.let = operand_ptr[v] + repeat[v] * operands[u, number, REPEATED_BEFORE]
                            value: T.let = operand_value[begin + operands[u, number, FIXED_BEFORE]]
                            at: T.let = place_ptr[place_of[v, s]] + q
                            if value >= 0:
                                place_operand[at] = name + 1 - value_row[value]
                            elif value == ZERO:
                                place_operand[at] = ZERO
                            else:
                                place_operand[at] = name - external_row[FIRST_EXTERNAL - value]
                    elif reads[r, KIND] == COTANGENT:
                        for i in range(group_ptr[u + 1] - group_ptr[u]):
                            v: T.let = node_order[group_ptr[u] + i]
                            place_operand[place_ptr[place_of[v, s]] + q] = cotangent[2 * (v * outputs + number) + part]
                    else:
                        for i in range(group_ptr[u + 1] - group_ptr[u]):
                            v: T.let = node_order[group_ptr[u] + i]
                            place_operand[place_ptr[place_of[v, s]] + q] = place_of[v, part] * out_stride + number
            if sections[u, s, TYPE] >= 0 and sections[u, s, SIMPLE] == 0:
                for i in range(group_ptr[u + 1] - group_ptr[u]):
                    v: T.let = node_order[group_ptr[u] + i]
                    before = 0
                    for q in range(sections[u, s, LAST_READ] - sections[u, s, FIRST_READ]):
                        r: T.let = sections[u, s, FIRST_READ] + q
                        number: T.let = reads[r, NUMBER]
                        of_rows = 0
                        if reads[r, KIND] == OPERAND:
                            of_rows = operands[u, number, VARIADIC]
                            begin: T.let = (
                                operand_ptr[v]
                                + operands[u, number, FIXED_BEFORE]
                                + repeat[v] * operands[u, number, REPEATED_BEFORE]
                            )
                            for j in range(T.Select(of_rows == 1, repeat[v], 1)):
                                value: T.let = operand_value[begin + j]
                                names[j] = ZERO
                                if value >= 0:
                                    names[j] = FIRST_EXTERNAL + 1 - outside[reads[r, READ_ARENA]] - value_row[value]
                                elif value != ZERO:
                                    names[j] = (
                                        FIRST_EXTERNAL
                                        - outside[reads[r, READ_ARENA]]
                                        - external_row[FIRST_EXTERNAL - value]
                                    )
                        elif reads[r, KIND] == VALUE:
                            names[0] = (
                                FIRST_EXTERNAL + 1 - outside[reads[r, READ_ARENA]] - value_row[v * stride + number]
                            )
                        elif reads[r, KIND] == COTANGENT:
                            names[0] = cotangent[2 * (v * outputs + number) + reads[r, PART]]
                        else:
                            of_rows = sections[u, reads[r, PART], PER_ROW]
                            for j in range(T.Select(of_rows == 1, repeat[v], 1)):
                                names[j] = (place_of[v, reads[r, PART]] + j) * out_stride + number
                        for p in range(T.Select(sections[u, s, PER_ROW] == 1, repeat[v], 1)):
                            if reads[r, EVERY_ROW] == 1:
                                for j in range(repeat[v]):
                                    place_operand[place_ptr[place_of[v, s] + p] + before + j] = names[j]
                            else:
                                place_operand[place_ptr[place_of[v, s] + p] + before] = names[p * of_rows]
                        before += T.Select(reads[r, EVERY_ROW] == 1, repeat[v], 1)
    io[PLACES] = T.Cast("int64", places)
    io[BATCHES] = T.Cast("int64", batches)
    io[EXTERNAL_USES] = T.Cast("int64", outer_uses)
