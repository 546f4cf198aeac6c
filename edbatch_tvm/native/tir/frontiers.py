"""The ready nodes of each type in a scheduling kernel, and what is kept up to date with them.

`s` is the kernel's :class:`~edbatch_tvm.native.tir.schedule_loop.ScheduleLoop`.
"""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.native.constants import LANES
from edbatch_tvm.native.tir.depths_and_heights import clear_row, raise_row, typewise_heights
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T

WAITS, USES, TYPE, BATCH = range(4)
"""Columns of the `node` table of the scheduling kernels."""


@inlined
def split_queue(s):
    before = 0
    for u in range(s.t):
        s.head[u] = before
        before += T.Cast("int32", s.type_count[u])
        s.tail[u] = s.head[u]
        s.ranking[u] = u


@inlined
def read_nodes(s):
    # Those that wait for none are ready.
    for v in range(s.n):
        u: T.let = T.Cast("int32", s.node_type[v])
        waits: T.let = s.waits[v]
        s.node[v, WAITS] = waits
        s.node[v, USES] = s.use_ptr[v]
        s.node[v, TYPE] = u
        if waits == 0:
            s.queue[s.tail[u]] = v
            s.tail[u] += 1
    s.node[s.n, USES] = s.use_ptr[s.n]


@inlined
def push(s, v):
    # Node v becomes ready.
    u: T.let = s.node[v, TYPE]
    s.queue[s.tail[u]] = v
    s.tail[u] += 1
    if s.with_heights == 1:
        raise_row(s.chunks, s.reach, u, s.height, v)


@inlined
def start_heights(s):
    typewise_heights(s.n, s.chunks, s.node_type, s.use_ptr, s.user, s.height)
    for u in range(s.t):
        clear_row(s.chunks, s.reach, u)
        for i in range(s.tail[u] - s.head[u]):
            v: T.let = s.queue[s.head[u] + i]
            raise_row(s.chunks, s.reach, u, s.height, v)
    s.with_heights = 1


@inlined
def find_tight_types(s):
    # Running a tight type lowers the bound: no ready node of another type has as many of its nodes ahead.
    clear_row(s.chunks, s.reach, s.t)
    for u in range(s.t):
        if s.tail[u] > s.head[u]:
            for c in range(s.chunks):
                for j in T.vectorized(LANES):
                    s.reach[s.t, c * LANES + j] = T.max(
                        s.reach[s.t, c * LANES + j], T.Select(c * LANES + j == u, 0, s.reach[u, c * LANES + j])
                    )
    for u in range(s.t):
        s.tight[u] = T.Select(s.reach[u, u] > s.reach[s.t, u], 1, 0)


@inlined
def count_typewise_frontiers(s):
    for u in range(s.t):
        s.typewise[u] = 0
    for v in range(s.n):
        clear_row(s.chunks, s.blocked, v)
    for v in range(s.n):
        own: T.let = T.Cast("int32", s.node_type[v])
        begin: T.let = s.use_ptr[v]
        for i in range(s.use_ptr[v + 1] - begin):
            w: T.let = s.user[begin + i]
            for c in range(s.chunks):
                for j in T.vectorized(LANES):
                    s.blocked[w, c * LANES + j] += T.Select(
                        c * LANES + j == own, 1, T.min(s.blocked[v, c * LANES + j], 1)
                    )
        if s.blocked[v, own] == 0:
            s.typewise[own] += 1


@inlined
def run_frontier(s):
    # Run the whole frontier of the chosen type.
    s.missing = 0
    begin: T.let = s.head[s.chosen]
    size: T.let = s.tail[s.chosen] - begin
    s.head[s.chosen] = begin + size
    if s.with_heights == 1:
        clear_row(s.chunks, s.reach, s.chosen)
    for i in range(size):
        v: T.let = s.queue[begin + i]
        s.node[v, BATCH] = s.batches
        use: T.let = s.node[v, USES]
        for k in range(s.node[v + 1, USES] - use):
            w: T.let = s.user[use + k]
            waits: T.let = s.node[w, WAITS] - 1
            s.node[w, WAITS] = waits
            if waits == 0:
                push(s, w)
    if s.with_typewise == 1:
        unblock_users(s, begin, size)
    s.executed += size
    s.batch_type[s.batches] = T.Cast("int16", s.chosen)
    s.batches += 1
    s.batch_ptr[s.batches] = s.executed


@inlined
def unblock_users(s, begin, size):
    # The users of what ran, through nodes of other types, have one such ancestor less.
    s.typewise[s.chosen] -= size
    for i in range(size):
        waiting = 1
        s.stack[0] = s.queue[begin + i]
        while waiting > 0:
            waiting -= 1
            v: T.let = s.stack[waiting]
            use: T.let = s.node[v, USES]
            for k in range(s.node[v + 1, USES] - use):
                w: T.let = s.user[use + k]
                s.blocked[w, s.chosen] -= 1
                if s.blocked[w, s.chosen] == 0:
                    if s.node[w, TYPE] == s.chosen:
                        s.typewise[s.chosen] += 1
                    else:
                        s.stack[waiting] = w
                        waiting += 1


@inlined
def group_by_batch(n, batches, node, batch_ptr, cursor, order):
    # Counting sort of the nodes by batch; nodes of a batch stay in node order.
    for b in range(batches):
        cursor[b] = batch_ptr[b]
    for v in range(n):
        b: T.let = node[v, BATCH]
        order[cursor[b]] = v
        cursor[b] += 1
