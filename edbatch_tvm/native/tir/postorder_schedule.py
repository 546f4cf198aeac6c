"""The schedule of policy ``postorder``: nodes depth first, neighbours of one type in one batch."""

# `and` evaluates both sides, so conditions that guard a read are nested.
# ruff: noqa: D103, SIM102
# mypy: ignore-errors

from edbatch_tvm.batching.postorder import MOST_BELOW
from edbatch_tvm.native.constants import BATCHES
from edbatch_tvm.native.tir.buffers import ScheduleResults, argument, size
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T


@inlined
def sort_nodes(stack, begin, end, sizes, by_size):
    # Nodes by number or, if `by_size`, by size and the later of equal ones first: Shell's sort, as no keys are equal.
    first: T.let = begin
    count: T.let = end - begin
    gap = T.truncdiv(count, 2)
    while gap > 0:
        for i in range(count - gap):
            node: T.let = stack[first + gap + i]
            place = gap + i
            moves = 1
            while moves == 1:
                moves = 0
                if place >= gap:
                    other: T.let = stack[first + place - gap]
                    larger: T.let = (sizes[other] > sizes[node]) or (sizes[other] == sizes[node] and other < node)
                    if (by_size and larger) or (not by_size and other > node):
                        stack[first + place] = other
                        place -= gap
                        moves = 1
            stack[first + place] = node
        gap = T.truncdiv(gap, 2)


@T.prim_func
def postorder_schedule(
    stride: T.int32,
    node_type_: T.handle,
    operand_ptr_: T.handle,
    operand_value_: T.handle,
    # How many nodes are below each, once for each path, up to MOST_BELOW.
    below_: T.handle,
    # Of each node: the last node that was seen to read it, whether any does, whether it is done, and its batch.
    marks_: T.handle,
    # Nodes to visit, -1 - v to append node v.
    stack_: T.handle,
    order_: T.handle,
    batch_ptr_: T.handle,
    batch_type_: T.handle,
    io_: T.handle,
):
    n = T.meta_var(size("n"))
    node_type = T.meta_var(argument(node_type_, (n,), "int16"))
    operand_ptr = T.meta_var(argument(operand_ptr_, (n + 1,)))
    operand_value = T.meta_var(argument(operand_value_, (size("e"),)))
    below = T.meta_var(argument(below_, (n,), "int64"))
    marks = T.meta_var(argument(marks_, (4, n)))
    stack = T.meta_var(argument(stack_, (size("room"),)))
    results = T.meta_var(ScheduleResults(n, order_, batch_ptr_, batch_type_))
    order = T.meta_var(results.order)
    batch_ptr = T.meta_var(results.batch_ptr)
    batch_type = T.meta_var(results.batch_type)
    io = T.meta_var(argument(io_, (size("io_size"),), "int64"))

    for v in range(n):
        marks[0, v] = -1
        marks[1, v] = 0
        marks[2, v] = 0
        marks[3, v] = -1
    for v in range(n):
        total = T.int64(1)
        begin: T.let = operand_ptr[v]
        for i in range(operand_ptr[v + 1] - begin):
            value: T.let = operand_value[begin + i]
            if value >= 0:
                operand: T.let = T.truncdiv(value, stride)
                if marks[0, operand] != v:
                    marks[0, operand] = v
                    marks[1, operand] = 1
                    total = T.min(total + below[operand], T.int64(MOST_BELOW))
        below[v] = total
    top = 0
    for i in range(n):
        if marks[1, n - 1 - i] == 0:
            stack[top] = n - 1 - i
            top += 1
    count = 0
    batches = 0
    while top > 0:
        top -= 1
        next: T.let = stack[top]
        if next < 0:
            v: T.let = -1 - next
            begin: T.let = operand_ptr[v]
            starts = 1
            if batches > 0:
                if batch_type[batches - 1] == node_type[v]:
                    starts = 0
                    for i in range(operand_ptr[v + 1] - begin):
                        value: T.let = operand_value[begin + i]
                        if value >= 0:
                            if marks[3, T.truncdiv(value, stride)] == batches - 1:
                                starts = 1
            if starts == 1:
                if batches > 0:
                    sort_nodes(order, batch_ptr[batches - 1], count, below, False)
                batch_ptr[batches] = count
                batch_type[batches] = node_type[v]
                batches += 1
            marks[3, v] = batches - 1
            order[count] = v
            count += 1
        else:
            if marks[2, next] == 0:
                marks[2, next] = 1
                stack[top] = -1 - next
                top += 1
                from_here: T.let = top
                begin: T.let = operand_ptr[next]
                for i in range(operand_ptr[next + 1] - begin):
                    value: T.let = operand_value[begin + i]
                    if value >= 0:
                        operand: T.let = T.truncdiv(value, stride)
                        if marks[2, operand] == 0 and marks[0, operand] != n + next:
                            marks[0, operand] = n + next
                            stack[top] = operand
                            top += 1
                sort_nodes(stack, from_here, top, below, True)
    sort_nodes(order, batch_ptr[batches - 1], count, below, False)
    batch_ptr[batches] = count
    io[BATCHES] = T.Cast("int64", batches)
