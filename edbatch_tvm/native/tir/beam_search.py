"""Beam search over schedules; see :mod:`edbatch_tvm.batching.search`."""

# ruff: noqa: D103, F841, SIM102
# mypy: ignore-errors

from edbatch_tvm.batching.encoding import HASH_FACTOR
from edbatch_tvm.native.constants import BATCHES, COST, DROPPED, FAILED, LANES
from edbatch_tvm.native.tir.shared import typewise_heights
from edbatch_tvm.tvm_compat import script_tirx as T


@T.prim_func
def search(
    width: T.int32,
    t: T.int32,
    limit_: T.int64,
    node_type_: T.handle,
    use_ptr_: T.handle,
    user_: T.handle,
    waits_: T.handle,
    height_: T.handle,
    indegree_: T.handle,
    queue_: T.handle,
    reach_: T.handle,
    marks_: T.handle,
    small_: T.handle,
    cost_: T.handle,
    price_: T.handle,
    weight_: T.handle,
    candidate_: T.handle,
    seen_: T.handle,
    trace_: T.handle,
    batch_type_: T.handle,
    io_: T.handle,
):
    n = T.int32()
    e = T.int32()
    p = T.int32()
    rows = T.int32()
    reach_rows = T.int32()
    sizes = T.int32()
    slots = T.int32()
    io_size = T.int32()
    node_type = T.match_buffer(node_type_, (n,), "int16", align=2)
    use_ptr = T.match_buffer(use_ptr_, (n + 1,), "int32", align=4)
    user = T.match_buffer(user_, (e,), "int32", align=4)
    waits = T.match_buffer(waits_, (n,), "int32", align=4)
    height = T.match_buffer(height_, (n, p), "int32", align=4)
    # States: row s is state s of this step's beam, row `width + s` one of the next's, and the other way round.
    indegree = T.match_buffer(indegree_, (rows, n), "int32", align=4)
    queue = T.match_buffer(queue_, (rows, n), "int32", align=4)
    reach = T.match_buffer(reach_, (reach_rows, p), "int32", align=4)  # t + 1 rows per state
    # Hash of what ran, and for each type the exclusive or of its ready nodes' keys.
    marks = T.match_buffer(marks_, (rows, t + 1), "uint64", align=8)
    # For each type head, tail, and whether it is tight; then the number of nodes that ran.
    small = T.match_buffer(small_, (rows, 3 * t + 1), "int32", align=4)
    # Cost of the batches so far, and the least cost of those to come.
    cost = T.match_buffer(cost_, (rows, 2), "int64", align=8)
    # Cost of a batch by type and size, the last column for all larger ones; the least cost of a batch of each type.
    price = T.match_buffer(price_, (t, sizes), "int64", align=8)
    weight = T.match_buffer(weight_, (t,), "int64", align=8)
    # The best children so far: cost with what is to come, number in the order of preference, state, type. A heap, the
    # worst first, until all are known.
    candidate = T.match_buffer(candidate_, (width, 4), "int64", align=8)
    # Hashes of all children of this step: two that ran the same nodes at the same cost are one.
    seen = T.match_buffer(seen_, (slots,), "uint64", align=8)
    trace = T.match_buffer(trace_, (n, width), "int32", align=4)
    batch_type = T.match_buffer(batch_type_, (n,), "int16", align=2)
    io = T.match_buffer(io_, (io_size,), "int64", align=8)
    chunks: T.let = T.truncdiv(p, LANES)
    key = T.uint64(0)

    @T.inline
    def push(s, v):
        # Node v becomes ready in state s.
        u: T.let = T.Cast("int32", node_type[v])
        queue[s, small[s, t + u]] = v
        small[s, t + u] += 1
        for c in range(chunks):
            for j in T.vectorized(LANES):
                reach[s * (t + 1) + u, c * LANES + j] = T.max(
                    reach[s * (t + 1) + u, c * LANES + j], height[v, c * LANES + j]
                )
        key = T.Cast("uint64", v + 1) * T.uint64(HASH_FACTOR)
        key = (key ^ (key >> T.uint64(29))) * T.uint64(HASH_FACTOR)
        marks[s, u + 1] = marks[s, u + 1] ^ key ^ (key >> T.uint64(32))

    @T.inline
    def find_tight(s):
        # The remaining bound of state s, and which types are tight.
        last: T.let = s * (t + 1) + t
        for c in range(chunks):
            for j in T.vectorized(LANES):
                reach[last, c * LANES + j] = 0
        for u in range(t):
            own: T.let = reach[s * (t + 1) + u, u]
            reach[s * (t + 1) + u, u] = 0
            for c in range(chunks):
                for j in T.vectorized(LANES):
                    reach[last, c * LANES + j] = T.max(
                        reach[last, c * LANES + j], reach[s * (t + 1) + u, c * LANES + j]
                    )
            reach[s * (t + 1) + u, u] = own
        cost[s, 1] = T.int64(0)
        for u in range(t):
            own: T.let = reach[s * (t + 1) + u, u]
            other: T.let = reach[last, u]
            small[s, 2 * t + u] = T.Select(own > other, 1, 0)
            cost[s, 1] += weight[u] * T.Cast("int64", T.max(own, other))

    @T.inline
    def sift_down(count, first, second, third, fourth):
        # Put a candidate at the root of the heap candidate[:count] and let it sink.
        at = 0
        sinking = 1
        while sinking == 1:
            sinking = 0
            child = 2 * at + 1
            if child < count:
                if child + 1 < count:
                    if candidate[child + 1, 0] > candidate[child, 0] or (
                        candidate[child + 1, 0] == candidate[child, 0] and candidate[child + 1, 1] > candidate[child, 1]
                    ):
                        child += 1
                if candidate[child, 0] > first or (candidate[child, 0] == first and candidate[child, 1] > second):
                    for field in range(4):
                        candidate[at, field] = candidate[child, field]
                    at = child
                    sinking = 1
        candidate[at, 0] = first
        candidate[at, 1] = second
        candidate[at, 2] = third
        candidate[at, 3] = fourth

    @T.inline
    def sift_up(last, first, second, third, fourth):
        # Put a candidate at the end of the heap candidate[:last] and let it rise.
        at = last
        rising = 1
        while rising == 1:
            rising = 0
            if at > 0:
                parent: T.let = T.truncdiv(at - 1, 2)
                if candidate[parent, 0] < first or (candidate[parent, 0] == first and candidate[parent, 1] < second):
                    for field in range(4):
                        candidate[at, field] = candidate[parent, field]
                    at = parent
                    rising = 1
        candidate[at, 0] = first
        candidate[at, 1] = second
        candidate[at, 2] = third
        candidate[at, 3] = fourth

    typewise_heights(n, chunks, node_type, use_ptr, user, height)
    for u in range(t):
        small[0, t + u] = 0
        marks[0, u + 1] = T.uint64(0)
        for c in range(chunks):
            for j in T.vectorized(LANES):
                reach[u, c * LANES + j] = 0
    marks[0, 0] = T.uint64(0)
    small[0, 3 * t] = 0
    cost[0, 0] = T.int64(0)
    for v in range(n):
        small[0, t + T.Cast("int32", node_type[v])] += 1
        indegree[0, v] = waits[v]
    before = 0
    for u in range(t):
        small[0, u] = before
        before += small[0, t + u]
        small[0, t + u] = small[0, u]
    for v in range(n):
        if waits[v] == 0:
            push(0, v)
    find_tight(0)

    old = 0  # first row of this step's beam
    size = 1  # states in it
    steps = 0
    limit = limit_
    dropped = 0
    best_steps = 0  # of the best complete state, and its number in the beam
    best_state = 0
    complete = 0
    while size > 0:
        # The best children: least cost with what is to come, then most nodes that ran, then the order they are met in.
        kept = 0
        met = T.int64(0)
        for i in range(slots):
            seen[i] = T.uint64(0)
        for i in range(size):
            s: T.let = old + i
            for u in range(t):
                ready: T.let = small[s, t + u] - small[s, u]
                if ready > 0:
                    spent: T.let = cost[s, 0] + price[u, T.min(ready, sizes - 1)]
                    total: T.let = spent + cost[s, 1] - weight[u] * T.Cast("int64", small[s, 2 * t + u])
                    left: T.let = T.Cast("int64", n - small[s, 3 * t] - ready)
                    rank: T.let = left * T.int64(4294967296) + met
                    met += T.int64(1)
                    if total <= limit:
                        code = (marks[s, 0] ^ marks[s, u + 1] ^ T.Cast("uint64", spent)) * T.uint64(HASH_FACTOR)
                        code = code ^ (code >> T.uint64(32))
                        if code == T.uint64(0):
                            code = T.uint64(1)
                        slot = T.Cast("int32", code & T.Cast("uint64", slots - 1))
                        while seen[slot] != code and seen[slot] != T.uint64(0):
                            slot = (slot + 1) & (slots - 1)
                        if seen[slot] == T.uint64(0):
                            seen[slot] = code
                            if kept < width:
                                sift_up(kept, total, rank, T.Cast("int64", s), T.Cast("int64", u))
                                kept += 1
                            else:
                                dropped = 1
                                if candidate[0, 0] > total or (candidate[0, 0] == total and candidate[0, 1] > rank):
                                    sift_down(width, total, rank, T.Cast("int64", s), T.Cast("int64", u))
        # Best first.
        for k in range(kept - 1):
            end: T.let = kept - 1 - k
            total: T.let = candidate[end, 0]
            rank: T.let = candidate[end, 1]
            state: T.let = candidate[end, 2]
            kind: T.let = candidate[end, 3]
            for field in range(4):
                candidate[end, field] = candidate[0, field]
            sift_down(end, total, rank, state, kind)
        new: T.let = width - old
        for i in range(kept):
            s: T.let = T.Cast("int32", candidate[i, 2])
            u: T.let = T.Cast("int32", candidate[i, 3])
            d: T.let = new + i
            trace[steps, i] = (s - old) * t + u
            for v in range(n):
                indegree[d, v] = indegree[s, v]
            for x in range(t):
                for k in range(small[s, t + x] - small[s, x]):
                    queue[d, small[s, x] + k] = queue[s, small[s, x] + k]
                for c in range(chunks):
                    for j in T.vectorized(LANES):
                        reach[d * (t + 1) + x, c * LANES + j] = reach[s * (t + 1) + x, c * LANES + j]
                marks[d, x + 1] = marks[s, x + 1]
                small[d, x] = small[s, x]
                small[d, t + x] = small[s, t + x]
            begin: T.let = small[s, u]
            ready: T.let = small[s, t + u] - begin
            small[d, u] = begin + ready
            small[d, 3 * t] = small[s, 3 * t] + ready
            cost[d, 0] = cost[s, 0] + price[u, T.min(ready, sizes - 1)]
            marks[d, 0] = marks[s, 0] ^ marks[s, u + 1]
            marks[d, u + 1] = T.uint64(0)
            for c in range(chunks):
                for j in T.vectorized(LANES):
                    reach[d * (t + 1) + u, c * LANES + j] = 0
            for k in range(ready):
                ran: T.let = queue[s, begin + k]
                first: T.let = use_ptr[ran]
                for i_use in range(use_ptr[ran + 1] - first):
                    v: T.let = user[first + i_use]
                    indegree[d, v] -= 1
                    if indegree[d, v] == 0:
                        push(d, v)
            find_tight(d)
            if small[d, 3 * t] == n and cost[d, 0] <= limit:
                # From here on only what costs less.
                complete = 1
                best_steps = steps + 1
                best_state = i
                limit = cost[d, 0] - T.int64(1)
        old = new
        size = kept
        steps += 1
    # Back from the state that is complete.
    at_state = best_state
    for k in range(best_steps):
        code: T.let = trace[best_steps - 1 - k, at_state]
        batch_type[best_steps - 1 - k] = T.Cast("int16", T.truncmod(code, t))
        at_state = T.truncdiv(code, t)
    io[BATCHES] = T.Cast("int64", best_steps)
    io[FAILED] = T.Cast("int64", complete == 0)
    io[DROPPED] = T.Cast("int64", dropped)
    io[COST] = limit + T.int64(1)
