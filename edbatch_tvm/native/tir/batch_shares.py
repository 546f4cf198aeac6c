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
    # For each type that of a node, and what a piece of a batch takes beside that of its nodes.
    work_: T.handle,
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
    # Working storage: what the pieces of each share take, its first node in each of two divisions, and where its nodes
    # begin in each batch.
    fixed_: T.handle,
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
    work = T.meta_var(argument(work_, (2, t), "int64"))
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
    fixed = T.meta_var(argument(fixed_, (threads,), "int64"))
    node = T.meta_var(argument(node_, (2, threads + 1)))
    split = T.meta_var(argument(split_, (m, threads + 1)))
    room = T.int32()
    made = T.meta_var(argument(made_, (room, columns)))
    first = T.meta_var(argument(first_, (threads + 1,)))
    io = T.meta_var(argument(io_, (1,), "int64"))
    p = T.meta_var(PieceTables(steps, made, columns, cells, operands))

    # Shares of nearly equal work: of the two ends of the instance in which a share should end, the nearer one. Which
    # batches a share has nodes of is known only then, so instances are divided once more, with what its pieces take. If
    # that cannot be, since small nodes make pieces count for most, the first division stays.
    total = T.int64(0)
    for u in range(t):
        total += type_count[u] * work[0, u]
    whole = T.int64(0)  # with what pieces take
    done = T.int64(0)
    earlier = T.int64(0)  # the nodes of earlier shares
    pieces_so_far = T.int64(0)  # those of this share and of earlier ones
    largest = T.int64(0)
    least = T.int64(0)
    share = 1
    divisions = 0
    for turn in range(2):
        if divisions == turn:
            whole = total
            for s in range(threads):
                fixed[s] = T.int64(0)
                if turn == 1:
                    for b in range(m):
                        if order[batch_ptr[b]] < node[0, s + 1] and order[batch_ptr[b + 1] - 1] >= node[0, s]:
                            fixed[s] += work[1, steps[b, TYPE]]
                whole += fixed[s]
            done = T.int64(0)
            earlier = T.int64(0)
            pieces_so_far = fixed[0]
            largest = T.int64(0)
            least = total
            share = 1
            node[turn, 0] = 0
            for i in range(k - 1):
                before: T.let = done
                for j in range(node_ptr[i + 1] - node_ptr[i]):
                    done += work[0, T.Cast("int32", node_type[node_ptr[i] + j])]
                while share < threads and (done + pieces_so_far) * T.Cast("int64", threads) >= whole * T.Cast(
                    "int64", share
                ):
                    end: T.let = T.truncdiv(whole * T.Cast("int64", share), T.Cast("int64", threads)) - pieces_so_far
                    short: T.let = end - before < done - end
                    node[turn, share] = T.Select(short, node_ptr[i], node_ptr[i + 1])
                    reached: T.let = T.Select(short, before, done)
                    largest = T.max(largest, reached - earlier + fixed[share - 1])
                    least = T.min(least, reached - earlier)
                    earlier = reached
                    pieces_so_far += fixed[share]
                    share += 1
            largest = T.max(largest, total - earlier + fixed[threads - 1])
            least = T.min(least, total - earlier)
            node[turn, threads] = n
            equal: T.let = largest * T.Cast("int64", threads) * T.int64(100) <= whole * io[0]
            if share == threads and equal and (turn == 0 or least > T.int64(0)):
                divisions += 1
    bad = T.Cast("int32", divisions == 0)
    used = T.max(divisions - 1, 0)

    # No share reads what another one writes.
    if bad == 0:
        for s in range(threads):
            low: T.let = node[used, s] * slots
            high: T.let = node[used, s + 1] * slots
            begin: T.let = operand_ptr[node[used, s]]
            for e in range(operand_ptr[node[used, s + 1]] - begin):
                value: T.let = operand_value[begin + e]
                bad += T.Cast("int32", value >= 0 and (value < low or value >= high))

    # The nodes of a batch lie share after share.
    if bad == 0:
        for b in range(m):
            own = 0
            split[b, 0] = batch_ptr[b]
            for j in range(batch_ptr[b + 1] - batch_ptr[b]):
                one: T.let = order[batch_ptr[b] + j]
                while one >= node[used, own + 1]:
                    own += 1
                    split[b, own] = batch_ptr[b] + j
                bad += T.Cast("int32", one < node[used, own])
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
