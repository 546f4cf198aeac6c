"""Beam search over schedules; see :mod:`edbatch_tvm.batching.search`."""

# ruff: noqa: D103, F841, SIM102
# mypy: ignore-errors

from tvm.script import tirx as T

from edbatch_tvm.batching.encoding import HASH_FACTOR
from edbatch_tvm.native.constants import BATCHES, FAILED, LANES
from edbatch_tvm.native.tir.shared import link_uses, typewise_heights


@T.prim_func
def search(
    width: T.int32,
    t: T.int32,
    node_type_: T.handle,
    operand_ptr_: T.handle,
    operand_node_: T.handle,
    height_: T.handle,
    links_: T.handle,
    indegree_: T.handle,
    queue_: T.handle,
    reach_: T.handle,
    marks_: T.handle,
    small_: T.handle,
    candidate_: T.handle,
    trace_: T.handle,
    batch_type_: T.handle,
    io_: T.handle,
):
    n = T.int32()
    e = T.int32()
    p = T.int32()
    link_size = T.int32()
    rows = T.int32()
    reach_rows = T.int32()
    candidates = T.int32()
    io_size = T.int32()
    node_type = T.match_buffer(node_type_, (n,), "int16", align=2)
    operand_ptr = T.match_buffer(operand_ptr_, (n + 1,), "int32", align=4)
    operand_node = T.match_buffer(operand_node_, (e,), "int32", align=4)
    height = T.match_buffer(height_, (n, p), "int32", align=4)
    links = T.match_buffer(links_, (link_size,), "int32", align=4)
    # States: row s is state s of this step's beam, row `width + s` one of the next's, and the other way round.
    indegree = T.match_buffer(indegree_, (rows, n), "int32", align=4)
    queue = T.match_buffer(queue_, (rows, n), "int32", align=4)
    reach = T.match_buffer(reach_, (reach_rows, p), "int32", align=4)  # t + 1 rows a state
    # Hash of what ran, and for each type the exclusive or of its ready nodes' keys.
    marks = T.match_buffer(marks_, (rows, t + 1), "uint64", align=8)
    # For each type head, tail, and whether it is tight; then the remaining bound and the number of nodes that ran.
    small = T.match_buffer(small_, (rows, 3 * t + 2), "int32", align=4)
    # The best children so far: state, type, remaining bound, nodes that ran, hash.
    candidate = T.match_buffer(candidate_, (candidates, 5), "int64", align=8)
    trace = T.match_buffer(trace_, (n, width), "int32", align=4)
    batch_type = T.match_buffer(batch_type_, (n,), "int16", align=2)
    io = T.match_buffer(io_, (io_size,), "int64", align=8)
    first_use = T.decl_buffer((n,), "int32", data=links.data, elem_offset=0)
    next_use = T.decl_buffer((e,), "int32", data=links.data, elem_offset=n)
    user = T.decl_buffer((e,), "int32", data=links.data, elem_offset=n + e)
    start = T.decl_buffer((n,), "int32", data=links.data, elem_offset=n + 2 * e)
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
        small[s, 3 * t] = 0
        for u in range(t):
            own: T.let = reach[s * (t + 1) + u, u]
            other: T.let = reach[last, u]
            small[s, 2 * t + u] = T.Select(own > other, 1, 0)
            small[s, 3 * t] += T.max(own, other)

    typewise_heights(n, chunks, node_type, operand_ptr, operand_node, height)
    link_uses(n, operand_ptr, operand_node, first_use, next_use, user, start)
    for u in range(t):
        small[0, t + u] = 0
        marks[0, u + 1] = T.uint64(0)
        for c in range(chunks):
            for j in T.vectorized(LANES):
                reach[u, c * LANES + j] = 0
    marks[0, 0] = T.uint64(0)
    small[0, 3 * t + 1] = 0
    for v in range(n):
        small[0, t + T.Cast("int32", node_type[v])] += 1
        indegree[0, v] = start[v]
    before = 0
    for u in range(t):
        small[0, u] = before
        before += small[0, t + u]
        small[0, t + u] = small[0, u]
    for v in range(n):
        if start[v] == 0:
            push(0, v)
    find_tight(0)

    old = 0  # first row of this step's beam
    size = 1  # states in it
    steps = 0
    complete = 0
    while complete == 0 and size > 0:
        # The best children: least remaining bound, then most nodes that ran, then the order they are met in.
        kept = 0
        for i in range(size):
            s: T.let = old + i
            for u in range(t):
                ready: T.let = small[s, t + u] - small[s, u]
                if ready > 0:
                    bound: T.let = T.Cast("int64", small[s, 3 * t] - small[s, 2 * t + u])
                    ran: T.let = T.Cast("int64", small[s, 3 * t + 1] + ready)
                    code: T.let = T.Cast("int64", marks[s, 0] ^ marks[s, u + 1])
                    at = kept
                    looking = 1
                    while looking == 1:
                        looking = 0
                        if at > 0:
                            if candidate[at - 1, 2] > bound or (
                                candidate[at - 1, 2] == bound and candidate[at - 1, 3] < ran
                            ):
                                at -= 1
                                looking = 1
                    # Two children that ran the same nodes are one.
                    twin = at
                    looking = 1
                    while looking == 1:
                        looking = 0
                        if twin > 0:
                            if candidate[twin - 1, 2] == bound and candidate[twin - 1, 3] == ran:
                                if candidate[twin - 1, 4] == code:
                                    at = width
                                else:
                                    twin -= 1
                                    looking = 1
                    if at < width:
                        if kept < width:
                            kept += 1
                        for k in range(kept - 1 - at):
                            for field in range(5):
                                candidate[kept - 1 - k, field] = candidate[kept - 2 - k, field]
                        candidate[at, 0] = T.Cast("int64", s)
                        candidate[at, 1] = T.Cast("int64", u)
                        candidate[at, 2] = bound
                        candidate[at, 3] = ran
                        candidate[at, 4] = code
        new: T.let = width - old
        for i in range(kept):
            s: T.let = T.Cast("int32", candidate[i, 0])
            u: T.let = T.Cast("int32", candidate[i, 1])
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
            small[d, 3 * t + 1] = small[s, 3 * t + 1] + ready
            marks[d, 0] = marks[s, 0] ^ marks[s, u + 1]
            marks[d, u + 1] = T.uint64(0)
            for c in range(chunks):
                for j in T.vectorized(LANES):
                    reach[d * (t + 1) + u, c * LANES + j] = 0
            for k in range(ready):
                edge = first_use[queue[s, begin + k]]
                while edge >= 0:
                    v: T.let = user[edge]
                    indegree[d, v] -= 1
                    if indegree[d, v] == 0:
                        push(d, v)
                    edge = next_use[edge]
            find_tight(d)
            if small[d, 3 * t + 1] == n and complete == 0:
                complete = i + 1
        old = new
        size = kept
        steps += 1
    # Back from the state that is complete.
    at_state = complete - 1
    if complete > 0:
        for k in range(steps):
            code: T.let = trace[steps - 1 - k, at_state]
            batch_type[steps - 1 - k] = T.Cast("int16", T.truncmod(code, t))
            at_state = T.truncdiv(code, t)
    io[BATCHES] = T.Cast("int64", steps)
    io[FAILED] = T.Cast("int64", complete == 0)
