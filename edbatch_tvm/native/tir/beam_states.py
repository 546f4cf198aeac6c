"""The states of beam search: which nodes are ready, how many ran, what it has cost, and the least that is to come.

`b` is the kernel's :class:`~edbatch_tvm.native.tir.beam_search.BeamSearch`; a state is a row of its tables.
"""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.batching.encoding import HASH_FACTOR
from edbatch_tvm.native.constants import LANES
from edbatch_tvm.native.tir.depths_and_heights import clear_row, raise_row
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T


@inlined
def start_state(b):
    # State 0: nothing ran.
    for u in range(b.t):
        b.small[0, b.t + u] = 0
        b.marks[0, u + 1] = T.uint64(0)
        clear_row(b.chunks, b.reach, u)
    b.marks[0, 0] = T.uint64(0)
    b.small[0, 3 * b.t] = 0
    b.cost[0, 0] = T.int64(0)
    for v in range(b.n):
        b.small[0, b.t + T.Cast("int32", b.node_type[v])] += 1
        b.indegree[0, v] = b.waits[v]
    before = 0
    for u in range(b.t):
        b.small[0, u] = before
        before += b.small[0, b.t + u]
        b.small[0, b.t + u] = b.small[0, u]
    for v in range(b.n):
        if b.waits[v] == 0:
            push_to_state(b, 0, v)
    find_remaining_bound(b, 0)


@inlined
def push_to_state(b, row, v):
    # Node v becomes ready.
    u: T.let = T.Cast("int32", b.node_type[v])
    b.queue[row, b.small[row, b.t + u]] = v
    b.small[row, b.t + u] += 1
    raise_row(b.chunks, b.reach, row * (b.t + 1) + u, b.height, v)
    key = T.Cast("uint64", v + 1) * T.uint64(HASH_FACTOR)
    key = (key ^ (key >> T.uint64(29))) * T.uint64(HASH_FACTOR)
    b.marks[row, u + 1] = b.marks[row, u + 1] ^ key ^ (key >> T.uint64(32))


@inlined
def find_remaining_bound(b, row):
    # The least cost of what is to come, and which types are tight.
    last: T.let = row * (b.t + 1) + b.t
    clear_row(b.chunks, b.reach, last)
    for u in range(b.t):
        own: T.let = b.reach[row * (b.t + 1) + u, u]
        b.reach[row * (b.t + 1) + u, u] = 0
        raise_row(b.chunks, b.reach, last, b.reach, row * (b.t + 1) + u)
        b.reach[row * (b.t + 1) + u, u] = own
    b.cost[row, 1] = T.int64(0)
    for u in range(b.t):
        own: T.let = b.reach[row * (b.t + 1) + u, u]
        other: T.let = b.reach[last, u]
        b.small[row, 2 * b.t + u] = T.Select(own > other, 1, 0)
        b.cost[row, 1] += b.weight[u] * T.Cast("int64", T.max(own, other))


@inlined
def copy_state(b, old, new):
    # The ready nodes of a state; run_type writes the rest.
    for v in range(b.n):
        b.indegree[new, v] = b.indegree[old, v]
    for x in range(b.t):
        for k in range(b.small[old, b.t + x] - b.small[old, x]):
            b.queue[new, b.small[old, x] + k] = b.queue[old, b.small[old, x] + k]
        for c in range(b.chunks):
            for j in T.vectorized(LANES):
                b.reach[new * (b.t + 1) + x, c * LANES + j] = b.reach[old * (b.t + 1) + x, c * LANES + j]
        b.marks[new, x + 1] = b.marks[old, x + 1]
        b.small[new, x] = b.small[old, x]
        b.small[new, b.t + x] = b.small[old, b.t + x]


@inlined
def run_type(b, old, new, u):
    # State `new`, a copy of `old`, runs all ready nodes of type u as one batch.
    begin: T.let = b.small[old, u]
    ready: T.let = b.small[old, b.t + u] - begin
    b.small[new, u] = begin + ready
    b.small[new, 3 * b.t] = b.small[old, 3 * b.t] + ready
    b.cost[new, 0] = b.cost[old, 0] + b.price[u, T.min(ready, b.sizes - 1)]
    b.marks[new, 0] = b.marks[old, 0] ^ b.marks[old, u + 1]
    b.marks[new, u + 1] = T.uint64(0)
    clear_row(b.chunks, b.reach, new * (b.t + 1) + u)
    for k in range(ready):
        ran: T.let = b.queue[old, begin + k]
        first: T.let = b.use_ptr[ran]
        for i in range(b.use_ptr[ran + 1] - first):
            v: T.let = b.user[first + i]
            b.indegree[new, v] -= 1
            if b.indegree[new, v] == 0:
                push_to_state(b, new, v)
    find_remaining_bound(b, new)
