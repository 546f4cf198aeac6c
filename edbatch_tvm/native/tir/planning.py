"""Memory plans: where blocks begin, the tables that kernels read, and whether a layout improves on another.

The same as :mod:`edbatch_tvm.memory.layout` and ``tables``. Cells come as two tables: a row of ``cells`` has
the numbers of outputs and operands, the fixed arity and the number of variadic operands of a type; ``operands[u, o]``
how many fixed and how many variadic operands come before operand o, whether it is variadic, and the bytes of its rows.
``outside[i]`` is the row of the operand value -1 - i.
"""

# ruff: noqa: D103, F823, F841, SIM108
# mypy: ignore-errors

from tvm.script import tirx as T

from edbatch_tvm.memory.steps import BROADCAST, CONTIGUOUS, COUNT, FIRST, INDEXED, OUTPUTS, POINTER, TYPE
from edbatch_tvm.native.cell_tables import (
    BOUND,
    BYTES,
    FILLED,
    FIXED,
    FIXED_BEFORE,
    IO_SLOTS,
    LARGEST,
    LOOKUPS,
    MOST_ROWS,
    OPERANDS,
    REPEATED,
    REPEATED_BEFORE,
    ROW_BYTES,
    VARIADIC,
    WIDTH,
)


@T.inline
def block(b, slot, batch_ptr, batch_type, output_arena, base, arena_rows):
    # The block of a batch and slot, behind those that its arena has.
    arena: T.let = output_arena[T.Cast("int32", batch_type[b]), slot]
    if arena >= 0:
        base[b, slot] = arena_rows[arena]
        arena_rows[arena] += batch_ptr[b + 1] - batch_ptr[b]
    else:
        base[b, slot] = 0


@T.inline
def stack_by_batch(m, slots, batch_ptr, batch_type, output_arena, base, arena_rows):
    for b in range(m):
        for slot in range(slots):
            block(b, slot, batch_ptr, batch_type, output_arena, base, arena_rows)


@T.prim_func
def place(
    together: T.int32,
    batch_ptr_: T.handle,
    batch_type_: T.handle,
    output_arena_: T.handle,
    work_: T.handle,
    base_: T.handle,
    arena_rows_: T.handle,
):
    # together = 0: the blocks batch after batch; 1: slot after slot, those of one type together.
    T.func_attr({"tirx.noalias": True})
    m = T.int32()
    t = T.int32()
    slots = T.int32()
    arenas = T.int32()
    room = T.int32()
    batch_ptr = T.match_buffer(batch_ptr_, (m + 1,), "int32", align=4)
    batch_type = T.match_buffer(batch_type_, (m,), "int16", align=2)
    output_arena = T.match_buffer(output_arena_, (t, slots), "int32", align=4)
    work = T.match_buffer(work_, (room,), "int32", align=4)
    base = T.match_buffer(base_, (m, slots), "int32", align=4)
    # Filled up to here: at first with the zero state and external rows.
    arena_rows = T.match_buffer(arena_rows_, (arenas,), "int32", align=4)
    by_type = T.decl_buffer((m,), "int32", data=work.data, elem_offset=0)
    first = T.decl_buffer((t,), "int32", data=work.data, elem_offset=m)

    if together == 0:
        stack_by_batch(m, slots, batch_ptr, batch_type, output_arena, base, arena_rows)
    else:
        for u in range(t):
            first[u] = 0
        for b in range(m):
            first[T.Cast("int32", batch_type[b])] += 1
        total = 0
        for u in range(t):
            size: T.let = first[u]
            first[u] = total
            total += size
        for b in range(m):
            u: T.let = T.Cast("int32", batch_type[b])
            by_type[first[u]] = b
            first[u] += 1
        for slot in range(slots):
            for i in range(m):
                b: T.let = by_type[i]
                block(b, slot, batch_ptr, batch_type, output_arena, base, arena_rows)


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
    n = T.int32()
    e = T.int32()
    x = T.int32()
    m = T.int32()
    t = T.int32()
    most = T.int32()
    slots = T.int32()
    columns = T.int32()
    arenas = T.int32()
    indices = T.int32()
    room = T.int32()
    node_type = T.match_buffer(node_type_, (n,), "int16", align=2)
    operand_ptr = T.match_buffer(operand_ptr_, (n + 1,), "int32", align=4)
    operand_value = T.match_buffer(operand_value_, (e,), "int32", align=4)
    outside = T.match_buffer(outside_, (x,), "int32", align=4)
    order = T.match_buffer(order_, (n,), "int32", align=4)
    batch_ptr = T.match_buffer(batch_ptr_, (m + 1,), "int32", align=4)
    batch_type = T.match_buffer(batch_type_, (m,), "int16", align=2)
    base = T.match_buffer(base_, (m, slots), "int32", align=4)
    cells = T.match_buffer(cells_, (t, 5), "int32", align=4)
    operands = T.match_buffer(operands_, (t, most, 4), "int32", align=4)
    work = T.match_buffer(work_, (room,), "int32", align=4)
    output_arena = T.match_buffer(output_arena_, (t, slots), "int32", align=4)
    arena_rows = T.match_buffer(arena_rows_, (arenas,), "int32", align=4)
    steps = T.match_buffer(steps_, (m, columns), "int32", align=4)
    index = T.match_buffer(index_, (indices,), "int32", align=4)
    value_row = T.match_buffer(value_row_, (n, slots), "int32", align=4)
    attribute_row = T.match_buffer(attribute_row_, (n,), "int32", align=4)
    io = T.match_buffer(io_, (IO_SLOTS,), "int64", align=8)
    flat_row = T.decl_buffer((n * slots,), "int32", data=value_row.data, elem_offset=0)
    rank = T.decl_buffer((n,), "int32", data=work.data, elem_offset=0)
    where = T.decl_buffer((n,), "int32", data=work.data, elem_offset=n)  # operands of the nodes of one batch
    count = T.decl_buffer((t,), "int32", data=work.data, elem_offset=2 * n)
    repeats = T.decl_buffer((t,), "int32", data=work.data, elem_offset=2 * n + t)
    start = T.decl_buffer((t,), "int32", data=work.data, elem_offset=2 * n + 2 * t)
    first = T.decl_buffer((t,), "int32", data=work.data, elem_offset=2 * n + 3 * t)
    repeated = T.decl_buffer((t,), "int32", data=work.data, elem_offset=2 * n + 4 * t)
    offsets_at = T.decl_buffer((t,), "int32", data=work.data, elem_offset=2 * n + 5 * t)
    piece_at = T.decl_buffer((t, most), "int32", data=work.data, elem_offset=2 * n + 6 * t)

    # How many nodes and variadic rows each type has, and where its pieces of the index and of the attributes begin.
    for u in range(t):
        count[u] = 0
        repeats[u] = 0
        first[u] = 0
        repeated[u] = 0
    for v in range(n):
        u: T.let = T.Cast("int32", node_type[v])
        rank[v] = count[u]
        count[u] += 1
        if cells[u, REPEATED] > 0:
            repeats[u] += T.truncdiv(operand_ptr[v + 1] - operand_ptr[v] - cells[u, FIXED], cells[u, REPEATED])
    filled = 0
    nodes_before = 0
    for u in range(t):
        start[u] = nodes_before
        nodes_before += count[u]
        if count[u] > 0:
            if cells[u, REPEATED] > 0:
                offsets_at[u] = filled
                index[filled] = 0
                filled += count[u] + 1
            for o in range(cells[u, OPERANDS]):
                piece_at[u, o] = filled
                filled += T.Select(operands[u, o, VARIADIC] == 1, repeats[u], count[u])

    jumps = 0  # rows that are not the one before plus one
    changes = 0  # rows that are not the one before
    before = 0
    row = 0

    @T.inline
    def read(value, at):
        # Write the row of `value` to the index and compare it with the row before.
        if value >= 0:
            row = flat_row[value]
        else:
            row = outside[-1 - value]
        index[at] = row
        if row != before + 1:
            jumps += 1
        if row != before:
            changes += 1
        before = row

    indexed_bytes = T.int64(0)
    lookups = 0
    largest = 0
    most_rows = 0
    for i in range(3):
        io[i] = T.int64(0)
    if stack == 1:
        stack_by_batch(m, slots, batch_ptr, batch_type, output_arena, base, arena_rows)
    for b in range(m):
        u: T.let = T.Cast("int32", batch_type[b])
        begin: T.let = batch_ptr[b]
        size: T.let = batch_ptr[b + 1] - begin
        done: T.let = first[u]
        rows_done: T.let = repeated[u]
        lookups += cells[u, BOUND]
        largest = T.max(largest, size)
        steps[b, TYPE] = u
        steps[b, COUNT] = size
        steps[b, FIRST] = done
        steps[b, POINTER] = 0
        for s in range(cells[u, WIDTH]):
            steps[b, OUTPUTS + s] = base[b, s]
        for i in range(size):
            v: T.let = order[begin + i]
            where[i] = operand_ptr[v]
            attribute_row[start[u] + done + i] = rank[v]
            for s in range(slots):
                value_row[v, s] = base[b, s] + i
        if cells[u, REPEATED] > 0:
            steps[b, POINTER] = offsets_at[u] + done
            sum_of = rows_done
            for i in range(size):
                v: T.let = order[begin + i]
                sum_of += T.truncdiv(operand_ptr[v + 1] - operand_ptr[v] - cells[u, FIXED], cells[u, REPEATED])
                index[offsets_at[u] + done + i + 1] = sum_of
            repeated[u] = sum_of
            most_rows = T.max(most_rows, sum_of - rows_done)
        first[u] = done + size
        for o in range(cells[u, OPERANDS]):
            is_variadic: T.let = operands[u, o, VARIADIC]
            from_type: T.let = T.Select(is_variadic == 1, rows_done, 0)
            at: T.let = piece_at[u, o] + T.Select(is_variadic == 1, rows_done, done)
            total: T.let = T.Select(is_variadic == 1, repeated[u] - rows_done, size)
            jumps = 0
            changes = 0
            before = 0
            if cells[u, REPEATED] == 0:
                for i in range(size):
                    value: T.let = operand_value[where[i] + o]
                    read(value, at + i)
            else:
                for i in range(size):
                    low: T.let = index[offsets_at[u] + done + i]
                    repeat: T.let = index[offsets_at[u] + done + i + 1] - low
                    position: T.let = where[i] + operands[u, o, FIXED_BEFORE] + repeat * operands[u, o, REPEATED_BEFORE]
                    if is_variadic == 1:
                        for j in range(repeat):
                            value: T.let = operand_value[position + j]
                            read(value, at + low - rows_done + j)
                    else:
                        value: T.let = operand_value[position]
                        read(value, at + i)
            head = 0
            if total > 0:
                # The first row has none before it.
                head = index[at]
                if head != 1:
                    jumps -= 1
                if head != 0:
                    changes -= 1
            column: T.let = OUTPUTS + cells[u, WIDTH] + 2 * o
            if jumps == 0:
                steps[b, column] = head - from_type
                steps[b, column + 1] = CONTIGUOUS
                io[0] += T.int64(1)
            elif changes == 0:
                steps[b, column] = head
                steps[b, column + 1] = BROADCAST
                io[1] += T.int64(1)
            else:
                steps[b, column] = at - from_type
                steps[b, column + 1] = INDEXED
                io[2] += T.int64(1)
                indexed_bytes += T.Cast("int64", total) * T.Cast("int64", operands[u, o, ROW_BYTES])
    io[BYTES] = indexed_bytes
    io[FILLED] = T.Cast("int64", filled)
    io[LOOKUPS] = T.Cast("int64", lookups)
    io[LARGEST] = T.Cast("int64", largest)
    io[MOST_ROWS] = T.Cast("int64", most_rows)


@T.prim_func
def any_worse(
    operand_ptr_: T.handle,
    operand_value_: T.handle,
    operand_node_: T.handle,
    outside_: T.handle,
    order_: T.handle,
    batch_ptr_: T.handle,
    batch_type_: T.handle,
    base_: T.handle,
    cells_: T.handle,
    operands_: T.handle,
    steps_: T.handle,
    work_: T.handle,
    io_: T.handle,
):
    # io[0] = number of operands that are indexed by `steps`, but not where rows are given by `order` and `base`.
    T.func_attr({"tirx.noalias": True})
    n = T.int32()
    e = T.int32()
    x = T.int32()
    m = T.int32()
    t = T.int32()
    most = T.int32()
    slots = T.int32()
    columns = T.int32()
    room = T.int32()
    operand_ptr = T.match_buffer(operand_ptr_, (n + 1,), "int32", align=4)
    operand_value = T.match_buffer(operand_value_, (e,), "int32", align=4)
    operand_node = T.match_buffer(operand_node_, (e,), "int32", align=4)
    outside = T.match_buffer(outside_, (x,), "int32", align=4)
    given = T.match_buffer(order_, (n,), "int32", align=4)
    batch_ptr = T.match_buffer(batch_ptr_, (m + 1,), "int32", align=4)
    batch_type = T.match_buffer(batch_type_, (m,), "int16", align=2)
    base = T.match_buffer(base_, (m, slots), "int32", align=4)
    cells = T.match_buffer(cells_, (t, 5), "int32", align=4)
    operands = T.match_buffer(operands_, (t, most, 4), "int32", align=4)
    steps = T.match_buffer(steps_, (m, columns), "int32", align=4)
    work = T.match_buffer(work_, (room,), "int32", align=4)
    io = T.match_buffer(io_, (1,), "int64", align=8)
    batch_of = T.decl_buffer((n,), "int32", data=work.data, elem_offset=0)
    seat = T.decl_buffer((n,), "int32", data=work.data, elem_offset=n)
    worse = 0
    for b in range(m):
        u: T.let = T.Cast("int32", batch_type[b])
        begin: T.let = batch_ptr[b]
        size: T.let = batch_ptr[b + 1] - begin
        for i in range(size):
            batch_of[given[begin + i]] = b
            seat[given[begin + i]] = i
        for o in range(cells[u, OPERANDS]):
            if steps[b, OUTPUTS + cells[u, WIDTH] + 2 * o + 1] == INDEXED:
                jumps = 0
                changes = 0
                at = 0
                row = 0
                before = 0
                i = 0
                while i < size and (jumps == 0 or changes == 0):
                    v: T.let = given[begin + i]
                    repeat = 0
                    if cells[u, REPEATED] > 0:
                        repeat = T.truncdiv(operand_ptr[v + 1] - operand_ptr[v] - cells[u, FIXED], cells[u, REPEATED])
                    first: T.let = (
                        operand_ptr[v] + operands[u, o, FIXED_BEFORE] + repeat * operands[u, o, REPEATED_BEFORE]
                    )
                    for j in range(T.Select(operands[u, o, VARIADIC] == 1, repeat, 1)):
                        value: T.let = operand_value[first + j]
                        p: T.let = operand_node[first + j]
                        if p >= 0:
                            row = base[batch_of[p], value - p * slots] + seat[p]
                        else:
                            row = outside[-1 - value]
                        if at > 0 and row != before + 1:
                            jumps = 1
                        if at > 0 and row != before:
                            changes = 1
                        before = row
                        at = 1
                    i += 1
                if jumps == 0 or changes == 0:
                    worse += 1
    io[0] = T.Cast("int64", worse)
