"""The order of nodes within batches of the plan ``order``; the same as :mod:`edbatch_tvm.memory.order_plan`.

Batches are visited last to first. Each grants what later ones asked of it, one request after the other, by linking
nodes to runs; then it asks the batches that it reads. `p` is the kernel's
:class:`~edbatch_tvm.native.tir.buffers.PlanArguments`, `s` its :class:`Ordering`.
"""

# ruff: noqa: D103
# mypy: ignore-errors

from typing import Any

from edbatch_tvm.native.cell_tables import OPERANDS, REPEATED, ROW_BYTES, VARIADIC, WEIGHTS
from edbatch_tvm.native.tir.buffers import PlanArguments, Workspace, argument, scalar, size
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T


class Ordering:
    """Results, working storage and scalars of ``order``."""

    def __init__(self, p: PlanArguments, request_bytes: Any, out: Any, work: Any) -> None:
        n, m, e = p.n, p.m, p.e
        asks = size("asks")
        self.request_bytes = argument(request_bytes, (asks,), "int64")
        self.out = argument(out, (n,))
        cut = Workspace(work).cut
        # Of nodes. In a run, `head` of its last node and `tail` of its first are its ends.
        self.batch_of = cut("batch_of", n)
        self.after = cut("after", n)
        self.before = cut("before", n)
        self.head = cut("head", n)
        self.tail = cut("tail", n)
        self.stamp = cut("stamp", n)
        # Of one batch: nodes, rows, positions; where the operands of the nodes in `out` begin.
        self.trail = cut("trail", n)
        self.sequence = cut("sequence", n)
        self.where = cut("where", n)
        # Of batches: their last firm and last free request, and how many they granted.
        self.last_firm = cut("last_firm", m)
        self.last_free = cut("last_free", m)
        self.granted = cut("granted", m)
        # Of requests: the nodes they ask for, one request after the other; whom they ask; the one asked there before.
        self.wanted = cut("wanted", e)
        self.wanted_at = cut("wanted_at", asks + 1)
        self.asked = cut("asked", asks)
        self.earlier = cut("earlier", asks)
        self.ranked = cut("ranked", asks)
        self.weight = cut("weight", asks)
        self.bucket = cut("bucket", WEIGHTS)

        self.linked = scalar("linked", 0)  # links made for one request
        self.fits = scalar("fits", 1)
        self.following = scalar("following", -1)
        self.total = scalar("total", 0)
        self.at = scalar("at", 0)
        self.requests = scalar("requests", 0)
        self.variadic_before = scalar("variadic_before", -1)


@inlined
def start(p, s):
    for v in range(p.n):
        s.after[v] = -1
        s.before[v] = -1
        s.head[v] = v
        s.tail[v] = v
        s.stamp[v] = -1
    for b in range(p.m):
        s.last_firm[b] = -1
        s.last_free[b] = -1
        s.granted[b] = 0
        for i in range(p.batch_ptr[b + 1] - p.batch_ptr[b]):
            s.batch_of[p.order[p.batch_ptr[b] + i]] = b
    s.wanted_at[0] = 0


@inlined
def link(s, left, right):
    # Let `right` follow `left`.
    if s.after[left] != right:
        if s.after[left] >= 0 or s.before[right] >= 0 or s.head[left] == right:
            s.fits = 0
        else:
            run_head: T.let = s.head[left]
            run_tail: T.let = s.tail[right]
            s.after[left] = right
            s.before[right] = left
            s.tail[run_head] = run_tail
            s.head[run_tail] = run_head
            s.trail[s.linked] = left
            s.linked += 1


@inlined
def undo_links(s):
    for i in range(s.linked):
        left: T.let = s.trail[s.linked - 1 - i]
        right: T.let = s.after[left]
        run_head: T.let = s.head[left]
        run_tail: T.let = s.tail[right]
        s.after[left] = -1
        s.before[right] = -1
        s.tail[run_head] = left
        s.head[run_tail] = right


@inlined
def rank_requests(s, last):
    # ranked[:total] = the requests in the list that ends at `last`, the largest first, else in the order they came.
    s.total = 0
    s.at = 0
    for i in range(WEIGHTS):
        s.bucket[i] = 0
    s.following = last
    while s.following >= 0:
        s.bucket[s.weight[s.following]] += 1
        s.total += 1
        s.following = s.earlier[s.following]
    for i in range(WEIGHTS):
        s.at += s.bucket[WEIGHTS - 1 - i]
        s.bucket[WEIGHTS - 1 - i] = s.at
    s.following = last
    while s.following >= 0:
        s.bucket[s.weight[s.following]] -= 1
        s.ranked[s.bucket[s.weight[s.following]]] = s.following
        s.following = s.earlier[s.following]


@inlined
def grant_firm(s, b):
    # Each request as it is, or not at all.
    rank_requests(s, s.last_firm[b])
    for k in range(s.total):
        r: T.let = s.ranked[k]
        low: T.let = s.wanted_at[r]
        s.fits = 1
        s.linked = 0
        for i in range(s.wanted_at[r + 1] - low - 1):
            if s.fits == 1:
                link(s, s.wanted[low + i], s.wanted[low + i + 1])
        s.granted[b] += s.fits
        if s.fits == 0:
            undo_links(s)


@inlined
def grant_free(s, b, size_of):
    # Each request in whatever order, if it is for whole runs, and not for all nodes anyway.
    rank_requests(s, s.last_free[b])
    for k in range(s.total):
        r: T.let = s.ranked[k]
        low: T.let = s.wanted_at[r]
        length: T.let = s.wanted_at[r + 1] - low
        if length < size_of:
            gather_runs(s, r, low, length)
            if s.fits == 1 and s.at == length:
                s.linked = 0
                s.granted[b] += 1
                for i in range(length - 1):
                    link(s, s.sequence[i], s.sequence[i + 1])


@inlined
def gather_runs(s, r, low, length):
    # sequence[:at] = the runs of the nodes that request r wants, one after the other.
    s.fits = 1
    s.at = 0
    for i in range(length):
        if s.stamp[s.wanted[low + i]] == r:
            s.fits = 0
        s.stamp[s.wanted[low + i]] = r
    for i in range(length):
        if s.fits == 1 and s.before[s.wanted[low + i]] < 0:
            s.following = s.wanted[low + i]
            while s.following >= 0:
                if s.stamp[s.following] == r:
                    s.sequence[s.at] = s.following
                    s.at += 1
                    s.following = s.after[s.following]
                else:
                    s.fits = 0
                    s.following = -1


@inlined
def write_runs(p, s, begin, size_of):
    s.at = begin
    for i in range(size_of):
        s.following = p.order[begin + i]
        if s.before[s.following] < 0:
            while s.following >= 0:
                s.out[s.at] = s.following
                s.where[s.at] = p.operand_ptr[s.following]
                s.at += 1
                s.following = s.after[s.following]


@inlined
def ask(p, s, u, begin, size_of, mine):
    # What this batch asks of earlier ones: the requests from `mine` on.
    s.variadic_before = -1
    for o in range(p.cells[u, OPERANDS]):
        low: T.let = s.wanted_at[s.requests]
        is_variadic: T.let = p.operands[u, o, VARIADIC]
        source = -1
        slot = -1
        s.fits = 1
        s.total = 0
        for i in range(size_of):
            if s.fits == 1:
                repeat = 0
                if p.cells[u, REPEATED] > 0:
                    node: T.let = s.out[begin + i]
                    repeat = p.repeats(u, node)
                first: T.let = s.where[begin + i] + p.position(u, o, repeat)
                for j in range(T.Select(is_variadic == 1, repeat, 1)):
                    v: T.let = p.operand_node[first + j]
                    if v < 0:
                        s.fits = 0
                    else:
                        if s.total == 0:
                            source = s.batch_of[v]
                            slot = p.operand_value[first] - v * p.slots
                        if s.batch_of[v] != source or p.operand_value[first + j] - v * p.slots != slot:
                            s.fits = 0
                        s.wanted[low + s.total] = v
                        s.total += 1
        if s.fits == 1 and s.total >= 2:
            add_request(p, s, u, o, low, is_variadic, mine, source)


@inlined
def add_request(p, s, u, o, low, is_variadic, mine, source):
    # Operands in a row that read the same nodes ask together.
    bytes_read: T.let = T.Cast("int64", s.total) * T.Cast("int64", p.operands[u, o, ROW_BYTES])
    s.fits = 0
    if s.requests > mine and is_variadic == s.variadic_before:
        other: T.let = s.wanted_at[s.requests - 1]
        if low - other == s.total:
            s.fits = 1
            for i in range(s.total):
                if s.wanted[low + i] != s.wanted[other + i]:
                    s.fits = 0
    s.variadic_before = is_variadic
    if s.fits == 1:
        s.request_bytes[s.requests - 1] += bytes_read
    else:
        s.asked[s.requests] = source
        s.request_bytes[s.requests] = bytes_read
        s.wanted_at[s.requests + 1] = low + s.total
        s.requests += 1


@inlined
def send_requests(s, b, mine):
    # Into the lists of those they ask: a batch's only request, if it granted none itself, is free.
    is_free: T.let = T.Select(s.requests - mine == 1 and s.granted[b] == 0, 1, 0)
    for i in range(s.requests - mine):
        r: T.let = mine + i
        s.weight[r] = 0
        while (s.request_bytes[r] >> T.Cast("int64", s.weight[r])) > T.int64(0):
            s.weight[r] += 1
        if is_free == 1:
            s.earlier[r] = s.last_free[s.asked[r]]
            s.last_free[s.asked[r]] = r
        else:
            s.earlier[r] = s.last_firm[s.asked[r]]
            s.last_firm[s.asked[r]] = r


@inlined
def follow_rows(p, s, u, begin, size_of):
    # Order a batch as the rows of one operand lie, if that makes them contiguous and no operand is so already.
    follow = -1  # the operand to follow; -2 if one is contiguous
    for o in range(p.cells[u, OPERANDS]):
        if follow != -2:
            jumps = 0
            least = 0
            largest = 0
            for i in range(size_of):
                value: T.let = p.operand_value[s.where[begin + i] + o]
                v: T.let = p.operand_node[s.where[begin + i] + o]
                if v >= 0:
                    s.trail[i] = p.base[s.batch_of[v], value - v * p.slots] + s.tail[v]
                else:
                    s.trail[i] = p.outside[-1 - value]
                if i == 0:
                    least = s.trail[i]
                    largest = s.trail[i]
                else:
                    if s.trail[i] != s.trail[i - 1] + 1:
                        jumps = 1
                    least = T.min(least, s.trail[i])
                    largest = T.max(largest, s.trail[i])
            if jumps == 0:
                follow = -2
            elif follow == -1 and largest - least == size_of - 1:
                sort_by_row(s, begin, size_of, least)
                if s.total == size_of:
                    follow = o
                    for i in range(size_of):
                        s.sequence[i] = s.head[i]
    if follow >= 0:
        for i in range(size_of):
            s.out[begin + i] = s.sequence[i]


@inlined
def sort_by_row(s, begin, size_of, least):
    # head[:size_of] = the nodes of a batch by row; total = how many different rows there are.
    for i in range(size_of):
        s.head[i] = -1
    for i in range(size_of):
        s.head[s.trail[i] - least] = s.out[begin + i]
    s.total = 0
    for i in range(size_of):
        if s.head[i] >= 0:
            s.total += 1


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
    request_bytes_: T.handle,
    out_: T.handle,
):
    T.func_attr({"tirx.noalias": True})
    p = T.meta_var(
        PlanArguments(
            operand_ptr_,
            operand_value_,
            outside_,
            order_,
            batch_ptr_,
            batch_type_,
            base_,
            cells_,
            operands_,
            operand_node_,
        )
    )
    s = T.meta_var(Ordering(p, request_bytes_, out_, work_))
    start(p, s)
    for step in range(p.m):
        b: T.let = p.m - 1 - step
        u: T.let = T.Cast("int32", p.batch_type[b])
        begin: T.let = p.batch_ptr[b]
        size_of: T.let = p.batch_ptr[b + 1] - begin
        if s.last_firm[b] >= 0:
            grant_firm(s, b)
        if s.last_free[b] >= 0:
            grant_free(s, b, size_of)
        write_runs(p, s, begin, size_of)
        mine: T.let = s.requests
        ask(p, s, u, begin, size_of, mine)
        send_requests(s, b, mine)

    # Batches that granted nothing follow the rows they read. `tail` has the place of each node in its batch now.
    for b in range(p.m):
        u: T.let = T.Cast("int32", p.batch_type[b])
        begin: T.let = p.batch_ptr[b]
        size_of: T.let = p.batch_ptr[b + 1] - begin
        if s.granted[b] == 0 and size_of > 1 and p.cells[u, REPEATED] == 0:
            follow_rows(p, s, u, begin, size_of)
        for i in range(size_of):
            s.tail[s.out[begin + i]] = i
