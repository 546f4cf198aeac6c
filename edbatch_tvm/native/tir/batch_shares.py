"""Steps tables: a minibatch divided into shares of its instances; the same as :mod:`edbatch_tvm.runtime.shares`."""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.memory.steps_table import TYPE
from edbatch_tvm.native.tir.batch_pieces import PieceTables, write_pieces
from edbatch_tvm.native.tir.buffers import argument, size
from edbatch_tvm.tvm_compat import script_tirx as T


@T.prim_func
def divide(
    threads: T.int32,
    multiplies_: T.handle,
    type_count_: T.handle,
    node_type_: T.handle,
    node_ptr_: T.handle,
    operand_ptr_: T.handle,
    operand_value_: T.handle,
    slots: T.int32,
    order_: T.handle,
    batch_ptr_: T.handle,
    steps_: T.handle,
    # For each type how many nodes a piece has at most.
    most_: T.handle,
    cells_: T.handle,
    operands_: T.handle,
    # Working storage: the first node of each share, and where each one's nodes begin in each batch.
    node_: T.handle,
    split_: T.handle,
    # Results: the steps of all shares, and where those of each begin; how many there are, 0 if it cannot be divided.
    # If they have no room, only that.
    made_: T.handle,
    first_: T.handle,
    # The percentage of its mean that the largest share may have.
    io_: T.handle,
):
    T.func_attr({"tirx.noalias": True})
    m = T.int32()
    columns = T.int32()
    t = T.int32()
    n = T.int32()
    k = T.int32()
    multiplies = T.meta_var(argument(multiplies_, (t,), "int64"))
    type_count = T.meta_var(argument(type_count_, (t,), "int64"))
    node_type = T.meta_var(argument(node_type_, (n,), "int16"))
    node_ptr = T.meta_var(argument(node_ptr_, (k,)))
    operand_ptr = T.meta_var(argument(operand_ptr_, (n + 1,)))
    operand_value = T.meta_var(argument(operand_value_, (size("e"),)))
    order = T.meta_var(argument(order_, (n,)))
    batch_ptr = T.meta_var(argument(batch_ptr_, (m + 1,)))
    steps = T.meta_var(argument(steps_, (m, columns)))
    most = T.meta_var(argument(most_, (t,), "int64"))
    cells = T.meta_var(argument(cells_, (t, 5)))
    operands = T.meta_var(argument(operands_, (t, size("operands_of_cell"), 4)))
    node = T.meta_var(argument(node_, (threads + 1,)))
    split = T.meta_var(argument(split_, (m, threads + 1)))
    room = T.int32()
    made = T.meta_var(argument(made_, (room, columns)))
    first = T.meta_var(argument(first_, (threads + 1,)))
    io = T.meta_var(argument(io_, (1,), "int64"))
    p = T.meta_var(PieceTables(steps, made, columns, cells, operands))

    # Shares of nearly equal work: of the two ends of the instance in which a share should end, the nearer one.
    total = T.int64(0)
    for u in range(t):
        total += type_count[u] * multiplies[u]
    done = T.int64(0)
    earlier = T.int64(0)  # the work of earlier shares
    largest = T.int64(0)
    share = 1
    node[0] = 0
    for i in range(k - 1):
        before: T.let = done
        for j in range(node_ptr[i + 1] - node_ptr[i]):
            done += multiplies[T.Cast("int32", node_type[node_ptr[i] + j])]
        while share < threads and done * T.Cast("int64", threads) >= total * T.Cast("int64", share):
            end: T.let = T.truncdiv(total * T.Cast("int64", share), T.Cast("int64", threads))
            short: T.let = end - before < done - end
            node[share] = T.Select(short, node_ptr[i], node_ptr[i + 1])
            reached: T.let = T.Select(short, before, done)
            largest = T.max(largest, reached - earlier)
            earlier = reached
            share += 1
    largest = T.max(largest, total - earlier)
    bad = 0
    if share < threads or largest * T.Cast("int64", threads) * T.int64(100) > total * io[0]:
        bad = 1
    else:
        node[threads] = n

    # No share reads what another one writes.
    if bad == 0:
        for s in range(threads):
            low: T.let = node[s] * slots
            high: T.let = node[s + 1] * slots
            begin: T.let = operand_ptr[node[s]]
            for e in range(operand_ptr[node[s + 1]] - begin):
                value: T.let = operand_value[begin + e]
                bad += T.Cast("int32", value >= 0 and (value < low or value >= high))

    # The nodes of a batch lie share after share.
    if bad == 0:
        for b in range(m):
            own = 0
            split[b, 0] = batch_ptr[b]
            for j in range(batch_ptr[b + 1] - batch_ptr[b]):
                one: T.let = order[batch_ptr[b] + j]
                while one >= node[own + 1]:
                    own += 1
                    split[b, own] = batch_ptr[b] + j
                bad += T.Cast("int32", one < node[own])
            for s in range(threads - own):
                split[b, own + 1 + s] = batch_ptr[b + 1]

    pieces = 0
    if bad == 0:
        for s in range(threads):
            first[s] = pieces
            for b in range(m):
                count: T.let = T.Cast("int64", split[b, s + 1] - split[b, s])
                limit: T.let = most[steps[b, TYPE]]
                pieces += T.Cast("int32", T.truncdiv(count + limit - T.int64(1), limit))
        first[threads] = pieces
    io[0] = T.Cast("int64", pieces)
    if bad == 0 and pieces <= room:
        at = 0
        for s in range(threads):
            for b in range(m):
                u: T.let = steps[b, TYPE]
                count: T.let = split[b, s + 1] - split[b, s]
                parts: T.let = T.Cast("int32", T.truncdiv(T.Cast("int64", count) + most[u] - T.int64(1), most[u]))
                write_pieces(p, b, split[b, s] - batch_ptr[b], count, parts, at)
                at += parts
