"""The order of nodes within batches of the plan ``order``; the same as :mod:`edbatch_tvm.memory.order`.

``cells``, ``operands`` and ``outside`` are those of :mod:`edbatch_tvm.native.tir.planning`.
"""

# ruff: noqa: D103, F823, F841
# mypy: ignore-errors

from tvm.script import tirx as T

from edbatch_tvm.native.cell_tables import (
    FIXED,
    FIXED_BEFORE,
    OPERANDS,
    REPEATED,
    REPEATED_BEFORE,
    ROW_BYTES,
    VARIADIC,
    WEIGHTS,
)


@T.prim_func
def order(
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
    work_: T.handle,
    size_: T.handle,
    out_: T.handle,
):
    T.func_attr({"tirx.noalias": True})
    n = T.int32()
    e = T.int32()
    x = T.int32()
    m = T.int32()
    t = T.int32()
    most = T.int32()
    slots = T.int32()
    room = T.int32()
    asks = T.int32()
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
    work = T.match_buffer(work_, (room,), "int32", align=4)
    size_of = T.match_buffer(size_, (asks,), "int64", align=8)  # bytes of each request
    out = T.match_buffer(out_, (n,), "int32", align=4)
    # Of nodes. In a run, `head` of its last node and `tail` of its first are its ends.
    batch_of = T.decl_buffer((n,), "int32", data=work.data, elem_offset=0)
    after = T.decl_buffer((n,), "int32", data=work.data, elem_offset=n)
    before = T.decl_buffer((n,), "int32", data=work.data, elem_offset=2 * n)
    head = T.decl_buffer((n,), "int32", data=work.data, elem_offset=3 * n)
    tail = T.decl_buffer((n,), "int32", data=work.data, elem_offset=4 * n)
    stamp = T.decl_buffer((n,), "int32", data=work.data, elem_offset=5 * n)
    # Of one batch: nodes, rows, positions; where the operands of the nodes in `out` begin.
    trail = T.decl_buffer((n,), "int32", data=work.data, elem_offset=6 * n)
    sequence = T.decl_buffer((n,), "int32", data=work.data, elem_offset=7 * n)
    where = T.decl_buffer((n,), "int32", data=work.data, elem_offset=8 * n)
    # Of batches: their last firm and last free request, and how many they granted.
    last_firm = T.decl_buffer((m,), "int32", data=work.data, elem_offset=9 * n)
    last_free = T.decl_buffer((m,), "int32", data=work.data, elem_offset=9 * n + m)
    granted = T.decl_buffer((m,), "int32", data=work.data, elem_offset=9 * n + 2 * m)
    # Of requests: the nodes they ask for, one request after the other; whom they ask; the one asked there before.
    wanted = T.decl_buffer((e,), "int32", data=work.data, elem_offset=9 * n + 3 * m)
    wanted_at = T.decl_buffer((asks + 1,), "int32", data=work.data, elem_offset=9 * n + 3 * m + e)
    asked = T.decl_buffer((asks,), "int32", data=work.data, elem_offset=9 * n + 3 * m + e + asks + 1)
    earlier = T.decl_buffer((asks,), "int32", data=work.data, elem_offset=9 * n + 3 * m + e + 2 * asks + 1)
    ranked = T.decl_buffer((asks,), "int32", data=work.data, elem_offset=9 * n + 3 * m + e + 3 * asks + 1)
    weight = T.decl_buffer((asks,), "int32", data=work.data, elem_offset=9 * n + 3 * m + e + 4 * asks + 1)
    bucket = T.decl_buffer((WEIGHTS,), "int32", data=work.data, elem_offset=9 * n + 3 * m + e + 5 * asks + 1)

    linked = 0
    fits = 1
    following = -1
    total = 0
    at = 0
    requests = 0

    @T.inline
    def pair(left, right):
        # Let `right` follow `left`.
        if after[left] != right:
            if after[left] >= 0 or before[right] >= 0 or head[left] == right:
                fits = 0
            else:
                run_head: T.let = head[left]
                run_tail: T.let = tail[right]
                after[left] = right
                before[right] = left
                tail[run_head] = run_tail
                head[run_tail] = run_head
                trail[linked] = left
                linked += 1

    @T.inline
    def rank(last):
        # ranked[:total] = the requests in the list that ends at `last`, the largest first, else in the order they came.
        total = 0
        at = 0
        for i in range(WEIGHTS):
            bucket[i] = 0
        following = last
        while following >= 0:
            bucket[weight[following]] += 1
            total += 1
            following = earlier[following]
        for i in range(WEIGHTS):
            at += bucket[WEIGHTS - 1 - i]
            bucket[WEIGHTS - 1 - i] = at
        following = last
        while following >= 0:
            bucket[weight[following]] -= 1
            ranked[bucket[weight[following]]] = following
            following = earlier[following]

    for v in range(n):
        after[v] = -1
        before[v] = -1
        head[v] = v
        tail[v] = v
        stamp[v] = -1
    for b in range(m):
        last_firm[b] = -1
        last_free[b] = -1
        granted[b] = 0
        for i in range(batch_ptr[b + 1] - batch_ptr[b]):
            batch_of[given[batch_ptr[b] + i]] = b
    wanted_at[0] = 0

    for step in range(m):
        b: T.let = m - 1 - step
        u: T.let = T.Cast("int32", batch_type[b])
        begin: T.let = batch_ptr[b]
        size: T.let = batch_ptr[b + 1] - begin
        if last_firm[b] >= 0:
            rank(last_firm[b])
            for k in range(total):
                # Grant the request as it is, or not at all.
                r: T.let = ranked[k]
                low: T.let = wanted_at[r]
                fits = 1
                linked = 0
                for i in range(wanted_at[r + 1] - low - 1):
                    if fits == 1:
                        pair(wanted[low + i], wanted[low + i + 1])
                granted[b] += fits
                if fits == 0:
                    for i in range(linked):
                        left: T.let = trail[linked - 1 - i]
                        right: T.let = after[left]
                        run_head: T.let = head[left]
                        run_tail: T.let = tail[right]
                        after[left] = -1
                        before[right] = -1
                        tail[run_head] = left
                        head[run_tail] = right
        if last_free[b] >= 0:
            rank(last_free[b])
            for k in range(total):
                # Grant the request in whatever order, if it is for whole runs, and not for all nodes anyway.
                r: T.let = ranked[k]
                low: T.let = wanted_at[r]
                length: T.let = wanted_at[r + 1] - low
                if length < size:
                    fits = 1
                    at = 0
                    for i in range(length):
                        if stamp[wanted[low + i]] == r:
                            fits = 0
                        stamp[wanted[low + i]] = r
                    for i in range(length):
                        if fits == 1 and before[wanted[low + i]] < 0:
                            following = wanted[low + i]
                            while following >= 0:
                                if stamp[following] == r:
                                    sequence[at] = following
                                    at += 1
                                    following = after[following]
                                else:
                                    fits = 0
                                    following = -1
                    if fits == 1 and at == length:
                        linked = 0
                        granted[b] += 1
                        for i in range(length - 1):
                            pair(sequence[i], sequence[i + 1])
        at = begin
        for i in range(size):
            following = given[begin + i]
            if before[following] < 0:
                while following >= 0:
                    out[at] = following
                    where[at] = operand_ptr[following]
                    at += 1
                    following = after[following]
        # What this batch asks of earlier ones.
        mine: T.let = requests
        variadic_before = -1
        for o in range(cells[u, OPERANDS]):
            low: T.let = wanted_at[requests]
            is_variadic: T.let = operands[u, o, VARIADIC]
            fits = 1
            total = 0
            source = -1
            slot = -1
            for i in range(size):
                if fits == 1:
                    repeat = 0
                    if cells[u, REPEATED] > 0:
                        v: T.let = out[begin + i]
                        repeat = T.truncdiv(operand_ptr[v + 1] - operand_ptr[v] - cells[u, FIXED], cells[u, REPEATED])
                    first: T.let = (
                        where[begin + i] + operands[u, o, FIXED_BEFORE] + repeat * operands[u, o, REPEATED_BEFORE]
                    )
                    for j in range(T.Select(is_variadic == 1, repeat, 1)):
                        v: T.let = operand_node[first + j]
                        if v < 0:
                            fits = 0
                        else:
                            if total == 0:
                                source = batch_of[v]
                                slot = operand_value[first] - v * slots
                            if batch_of[v] != source or operand_value[first + j] - v * slots != slot:
                                fits = 0
                            wanted[low + total] = v
                            total += 1
            if fits == 1 and total >= 2:
                bytes_read: T.let = T.Cast("int64", total) * T.Cast("int64", operands[u, o, ROW_BYTES])
                # Operands in a row that read the same nodes ask together.
                fits = 0
                if requests > mine and is_variadic == variadic_before:
                    other: T.let = wanted_at[requests - 1]
                    if low - other == total:
                        fits = 1
                        for i in range(total):
                            if wanted[low + i] != wanted[other + i]:
                                fits = 0
                variadic_before = is_variadic
                if fits == 1:
                    size_of[requests - 1] += bytes_read
                else:
                    asked[requests] = source
                    size_of[requests] = bytes_read
                    wanted_at[requests + 1] = low + total
                    requests += 1
        is_free: T.let = T.Select(requests - mine == 1 and granted[b] == 0, 1, 0)
        for i in range(requests - mine):
            r: T.let = mine + i
            weight[r] = 0
            while (size_of[r] >> T.Cast("int64", weight[r])) > T.int64(0):
                weight[r] += 1
            if is_free == 1:
                earlier[r] = last_free[asked[r]]
                last_free[asked[r]] = r
            else:
                earlier[r] = last_firm[asked[r]]
                last_firm[asked[r]] = r

    # Batches that granted nothing follow the rows they read. `tail` has the place of each node in its batch now.
    for b in range(m):
        u: T.let = T.Cast("int32", batch_type[b])
        begin: T.let = batch_ptr[b]
        size: T.let = batch_ptr[b + 1] - begin
        if granted[b] == 0 and size > 1 and cells[u, REPEATED] == 0:
            follow = -1  # the operand to follow; -2 if one is contiguous
            for o in range(cells[u, OPERANDS]):
                if follow != -2:
                    jumps = 0
                    least = 0
                    largest = 0
                    for i in range(size):
                        value: T.let = operand_value[where[begin + i] + o]
                        v: T.let = operand_node[where[begin + i] + o]
                        if v >= 0:
                            trail[i] = base[batch_of[v], value - v * slots] + tail[v]
                        else:
                            trail[i] = outside[-1 - value]
                        if i == 0:
                            least = trail[i]
                            largest = trail[i]
                        else:
                            if trail[i] != trail[i - 1] + 1:
                                jumps = 1
                            least = T.min(least, trail[i])
                            largest = T.max(largest, trail[i])
                    if jumps == 0:
                        follow = -2
                    elif follow == -1 and largest - least == size - 1:
                        for i in range(size):
                            head[i] = -1
                        for i in range(size):
                            head[trail[i] - least] = out[begin + i]
                        total = 0
                        for i in range(size):
                            if head[i] >= 0:
                                total += 1
                        if total == size:
                            follow = o
                            for i in range(size):
                                sequence[i] = head[i]
            if follow >= 0:
                for i in range(size):
                    out[begin + i] = sequence[i]
        for i in range(size):
            tail[out[begin + i]] = i
