"""Values of a minibatch in tables, one for each size of rows: copied there, found for operands, and copied from there.

Tables and arrays are known by the addresses of their rows. Rows are copied in words of four bytes: numbers of float32,
or halves of float64.
"""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.tvm_compat import script_tirx as T

ANY = 1 << 30
"""Length of arrays that are known by their address only."""


@T.prim_func
def keep(
    # Where each value lies: in which array, and in which row of it.
    group_: T.handle,
    row_: T.handle,
    # Of each array: its address, the bytes from row to row, and the table that its rows go to.
    groups_: T.handle,
    # Of each table: its address, the bytes of a row, and how many rows it has.
    tables_: T.handle,
    # The table of each value, and its row there.
    places_: T.handle,
):
    T.func_attr({"tirx.noalias": True})
    n = T.int32()
    arrays = T.int32()
    kinds = T.int32()
    group = T.match_buffer(group_, (n,), "int32", align=4)
    row = T.match_buffer(row_, (n,), "int32", align=4)
    groups = T.match_buffer(groups_, (arrays, 3), "int64", align=8)
    tables = T.match_buffer(tables_, (kinds, 3), "int64", align=8)
    places = T.match_buffer(places_, (2, n), "int64", align=8)
    for i in range(n):
        g: T.let = group[i]
        t: T.let = T.Cast("int32", groups[g, 2])
        count: T.let = tables[t, 2]
        begin: T.let = groups[g, 0] + T.Cast("int64", row[i]) * groups[g, 1]
        source = T.decl_buffer((ANY,), "float32", data=T.reinterpret("handle", begin), align=4)
        end: T.let = tables[t, 0] + count * tables[t, 1]
        target = T.decl_buffer((ANY,), "float32", data=T.reinterpret("handle", end), align=4)
        for j in range(T.Cast("int32", T.truncdiv(tables[t, 1], T.int64(4)))):
            target[j] = source[j]
        places[0, i] = T.Cast("int64", t)
        places[1, i] = count
        tables[t, 2] = count + T.int64(1)


@T.prim_func
def find(
    done: T.int64,
    zero: T.int32,
    first_external: T.int32,
    # What calls read: values from `done` on, which are computed now, earlier ones, and tensors from outside (-1 - i).
    operands_: T.handle,
    # What the values from `done` on are called in the graph.
    ids_: T.handle,
    # Where tensors from outside and earlier values lie: tables, and rows there.
    outside_: T.handle,
    earlier_: T.handle,
    # Of each table: its address, the bytes of a row, the arena of such rows, and how many the graph reads.
    tables_: T.handle,
    # What tensors from outside and earlier values are called in the graph; 0 where it is not known, 1 where it is not
    # known and has to be a row.
    names_: T.handle,
    # Results: what calls read as the graph calls it; of external rows the arena, the row, the table, the row there.
    operand_value_: T.handle,
    external_spec_: T.handle,
    external_: T.handle,
    # Result: the number of external rows.
    total_: T.handle,
):
    T.func_attr({"tirx.noalias": True})
    m = T.int32()
    v = T.int32()
    others = T.int32()
    before = T.int32()
    kinds = T.int32()
    named = T.int32()
    operands = T.match_buffer(operands_, (m,), "int64", align=8)
    ids = T.match_buffer(ids_, (v,), "int32", align=4)
    outside = T.match_buffer(outside_, (2, others), "int64", align=8)
    earlier = T.match_buffer(earlier_, (2, before), "int64", align=8)
    tables = T.match_buffer(tables_, (kinds, 4), "int64", align=8)
    names = T.match_buffer(names_, (named,), "int32", align=4)
    operand_value = T.match_buffer(operand_value_, (m,), "int32", align=4)
    external_spec = T.match_buffer(external_spec_, (m,), "int16", align=2)
    external = T.match_buffer(external_, (3, m), "int32", align=4)
    total = T.match_buffer(total_, (1,), "int32", align=4)
    count = 0
    table = 0
    row = T.int64(0)
    words = 0
    for i in range(m):
        value: T.let = operands[i]
        if value >= done:
            operand_value[i] = ids[T.Cast("int32", value - done)]
        else:
            place: T.let = T.Cast("int32", T.Select(value < T.int64(0), T.int64(-1) - value, value + others))
            if names[place] >= 0:
                if value < T.int64(0):
                    table = T.Cast("int32", outside[0, place])
                    row = outside[1, place]
                    # First states are zeros, which need no rows. (Not -0.0, which may matter.)
                    begin: T.let = tables[table, 0] + row * tables[table, 1]
                    bits = T.decl_buffer((ANY,), "int32", data=T.reinterpret("handle", begin), align=4)
                    words = T.Cast("int32", T.truncdiv(tables[table, 1], T.int64(4)))
                    # Both sides are evaluated: without the maximum, a row of zeros would have the word before it read.
                    while words > 0 and bits[T.max(words - 1, 0)] == 0:
                        words -= 1
                else:
                    table = T.Cast("int32", earlier[0, place - others])
                    row = earlier[1, place - others]
                    words = 1
                if words == 0 and names[place] == 0:
                    names[place] = zero
                else:
                    names[place] = first_external - count
                    external_spec[count] = T.Cast("int16", tables[table, 2])
                    external[0, count] = T.Cast("int32", tables[table, 3])
                    external[1, count] = table
                    external[2, count] = T.Cast("int32", row)
                    tables[table, 3] += T.int64(1)
                    count += 1
            operand_value[i] = names[place]
    total[0] = count


@T.prim_func
def copy(
    count: T.int32,
    # As `find` leaves them.
    external_: T.handle,
    tables_: T.handle,
    # Of each table the address of the array that its rows go to.
    targets_: T.handle,
):
    T.func_attr({"tirx.noalias": True})
    m = T.int32()
    kinds = T.int32()
    external = T.match_buffer(external_, (3, m), "int32", align=4)
    tables = T.match_buffer(tables_, (kinds, 4), "int64", align=8)
    targets = T.match_buffer(targets_, (kinds,), "int64", align=8)
    for i in range(count):
        t: T.let = external[1, i]
        size: T.let = tables[t, 1]
        begin: T.let = tables[t, 0] + T.Cast("int64", external[2, i]) * size
        source = T.decl_buffer((ANY,), "float32", data=T.reinterpret("handle", begin), align=4)
        end: T.let = targets[t] + T.Cast("int64", external[0, i]) * size
        target = T.decl_buffer((ANY,), "float32", data=T.reinterpret("handle", end), align=4)
        for j in range(T.Cast("int32", T.truncdiv(size, T.int64(4)))):
            target[j] = source[j]


@T.prim_func
def number(
    # Of each call its cell, and of each cell its type in the graph.
    calls_: T.handle,
    types_: T.handle,
    # The arena of each output of a type; -1 where a type has fewer.
    output_arena_: T.handle,
    # Results: the type of each node; what each value is called in the graph, and its arena; how many values there are.
    node_type_: T.handle,
    values_: T.handle,
    total_: T.handle,
):
    T.func_attr({"tirx.noalias": True})
    n = T.int32()
    cells = T.int32()
    graph_types = T.int32()
    stride = T.int32()
    room = T.int32()
    calls = T.match_buffer(calls_, (n,), "int64", align=8)
    types = T.match_buffer(types_, (cells,), "int16", align=2)
    output_arena = T.match_buffer(output_arena_, (graph_types, stride), "int32", align=4)
    node_type = T.match_buffer(node_type_, (n,), "int16", align=2)
    values = T.match_buffer(values_, (2, room), "int32", align=4)
    total = T.match_buffer(total_, (1,), "int32", align=4)
    count = 0
    for i in range(n):
        own: T.let = types[T.Cast("int32", calls[i])]
        node_type[i] = own
        for slot in range(T.Select(own >= T.int16(0), stride, 0)):
            arena: T.let = output_arena[T.Cast("int32", own), slot]
            if arena >= 0:
                values[0, count] = i * stride + slot
                values[1, count] = arena
                count += 1
    total[0] = count
