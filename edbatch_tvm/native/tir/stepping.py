"""One whole schedule in one call: by a rule, by a state machine, or while learning one."""

# ruff: noqa: SIM102, SIM109, SIM114
# mypy: ignore-errors

from typing import Any

from tvm.script import tirx as T

from edbatch_tvm.batching.encoding import BASE, HASH_FACTOR, MAX, TIGHT
from edbatch_tvm.batching.fixed import UNIT
from edbatch_tvm.batching.splitmix import FIRST_FACTOR, FIRST_SHIFT, INCREMENT, LAST_SHIFT, SECOND_FACTOR, SECOND_SHIFT
from edbatch_tvm.native.constants import (
    AGENDA,
    ALPHA,
    BATCHES,
    EPSILON,
    FAILED,
    FSM,
    GIVEN,
    IO_SLOTS,
    LANES,
    LEARN,
    LOOKAHEAD,
    MISSES,
    NSTEP,
    RANDOM,
    RATE,
    RATIO,
    REPLAY,
    STATES,
)
from edbatch_tvm.native.tir.shared import (
    BATCH,
    TYPE,
    USES,
    WAITS,
    group_by_batch,
    longest_depths,
    typewise_heights,
)

LOW_BITS = (1 << 32) - 1


def stepping(learning: bool) -> Any:
    """The kernel for the rules up to ``FSM``, or (`learning`) the one for ``LEARN`` and ``REPLAY``.

    A test of `learning` is decided when this is parsed: each kernel has its own part only.
    """

    @T.prim_func
    def schedule(
        rule: T.int32,
        encoding: T.int32,
        t: T.int32,
        node_type_: T.handle,
        use_ptr_: T.handle,
        user_: T.handle,
        waits_: T.handle,
        type_count_: T.handle,
        key_: T.handle,
        action_: T.handle,
        rows_: T.handle,
        work_: T.handle,
        order_: T.handle,
        batch_ptr_: T.handle,
        batch_type_: T.handle,
        io_: T.handle,
    ):
        n = T.int32()
        e = T.int32()
        slots = T.int32()
        action_slots = T.int32()
        row_slots = T.int32()
        work_size = T.int32()
        io_size = T.int32()
        node_type = T.match_buffer(node_type_, (n,), "int16", align=2)
        use_ptr = T.match_buffer(use_ptr_, (n + 1,), "int32", align=4)
        user = T.match_buffer(user_, (e,), "int32", align=4)
        waits_for = T.match_buffer(waits_, (n,), "int32", align=4)
        type_count = T.match_buffer(type_count_, (t,), "int64", align=8)
        # Policy table, open addressing: key 0 is an empty slot; the number of slots is a power of two.
        key = T.match_buffer(key_, (slots,), "uint64", align=8)
        action = T.match_buffer(action_, (action_slots,), "int32", align=4)
        # Learning, columns of each slot: t fixed-point values, t visit counts, the length of the state and its words.
        rows = T.match_buffer(rows_, (row_slots, 3 * t + 2), "int64", align=8)
        # Working storage: traces if learning; then heights for the rules that need them, and counts of what is blocked.
        work = T.match_buffer(work_, (work_size,), "int32", align=4)
        # Results.
        order = T.match_buffer(order_, (n,), "int32", align=4)
        batch_ptr = T.match_buffer(batch_ptr_, (n + 1,), "int32", align=4)
        batch_type = T.match_buffer(batch_type_, (n,), "int16", align=2)
        io = T.match_buffer(io_, (io_size,), "int64", align=8)
        chunks: T.let = T.truncdiv(t + LANES - 1, LANES)
        p: T.let = chunks * LANES
        reach = T.decl_buffer((t + 1, p), "int32", data=work.data, elem_offset=0)
        base: T.let = (t + 1) * p
        # What a step touches of a node lies in one cache line: nodes it waits for, first use, type, batch. Row v + 1
        # says where the uses of v end.
        node = T.decl_buffer((n + 1, 4), "int32", data=work.data, elem_offset=base)
        queue = T.decl_buffer((n,), "int32", data=work.data, elem_offset=base + 4 * n + 4)
        stack = T.decl_buffer((n,), "int32", data=work.data, elem_offset=base + 5 * n + 4)
        head = T.decl_buffer((t,), "int32", data=work.data, elem_offset=base + 6 * n + 4)
        tail = T.decl_buffer((t,), "int32", data=work.data, elem_offset=base + 6 * n + t + 4)
        ranking = T.decl_buffer((t,), "int32", data=work.data, elem_offset=base + 6 * n + 2 * t + 4)
        typewise = T.decl_buffer((t,), "int32", data=work.data, elem_offset=base + 6 * n + 3 * t + 4)
        tight = T.decl_buffer((t,), "int32", data=work.data, elem_offset=base + 6 * n + 4 * t + 4)
        word = T.decl_buffer((t + 2,), "int32", data=work.data, elem_offset=base + 6 * n + 5 * t + 4)
        trace_slot = T.decl_buffer((n,), "int32", data=work.data, elem_offset=base + 6 * n + 6 * t + 6)
        trace_reward = T.decl_buffer((n,), "int32", data=work.data, elem_offset=base + 7 * n + 6 * t + 6)

        needs_heights: T.let = T.Select(rule == LOOKAHEAD or rule == FSM or encoding == TIGHT, 1, 0)
        tables: T.let = base + T.Select(rule == LEARN, 8, 6) * n + 6 * t + 6
        height = T.decl_buffer((n, p), "int32", data=work.data, elem_offset=tables)
        blocked = T.decl_buffer((n, p), "int32", data=work.data, elem_offset=tables + needs_heights * n * p)
        with_heights = 0  # 1 once heights are known and `reach` is kept up to date
        with_typewise: T.let = T.Select(rule == RATIO or rule == LEARN, 1, 0)
        missing = 0  # 1 when the table did not know the state: the step is taken by lookahead
        going = 1
        batches = 0
        executed = 0
        misses = 0
        states = T.Cast("int32", io[STATES])
        chosen = -1
        slot = 0
        code = T.uint64(0)
        length = 0
        top = -1
        best_score = T.int64(0)

        @T.inline
        def push(v):
            # Node v becomes ready.
            u: T.let = node[v, TYPE]
            queue[tail[u]] = v
            tail[u] += 1
            if with_heights == 1:
                for c in range(chunks):
                    for j in T.vectorized(LANES):
                        reach[u, c * LANES + j] = T.max(reach[u, c * LANES + j], height[v, c * LANES + j])

        @T.inline
        def best_value(at):
            # `top` = the action of greatest value at slot `at`, the smallest type id among equals.
            # The types of a state are its distinct words (a word of `tight` is two times a type plus a bit).
            top = -1
            shift: T.let = T.Select(encoding == TIGHT, T.int64(1), T.int64(0))
            for i in range(T.Cast("int32", rows[at, 2 * t])):
                u: T.let = T.Cast("int32", rows[at, 2 * t + 1 + i] >> shift)
                # Both sides of an `or` are evaluated: no reads at -1 beside the test for it.
                if top < 0:
                    top = u
                elif rows[at, u] > rows[at, top] or (rows[at, u] == rows[at, top] and u < top):
                    top = u

        for v in range(n):
            node[v, WAITS] = waits_for[v]
            node[v, USES] = use_ptr[v]
            node[v, TYPE] = T.Cast("int32", node_type[v])
        node[n, USES] = use_ptr[n]
        # The ready nodes of type u are queue[head[u]:tail[u]], in a part of the queue that has room for all of type u.
        before = 0
        for u in range(t):
            head[u] = before
            before += T.Cast("int32", type_count[u])
            tail[u] = head[u]
            ranking[u] = u
        if not learning:
            if rule == AGENDA:
                longest_depths(n, use_ptr, user, stack)
                for u in range(t):
                    io[IO_SLOTS + u] = T.int64(0)
                    typewise[u] = 0
                for v in range(n):
                    io[IO_SLOTS + T.Cast("int32", node_type[v])] += T.Cast("int64", stack[v])
                    typewise[T.Cast("int32", node_type[v])] += 1
        if with_typewise == 1:
            # blocked[v, x] = operands of v that are, or have before them, a node of type x that did not run yet.
            for u in range(t):
                typewise[u] = 0
            for v in range(n):
                for c in range(chunks):
                    for j in T.vectorized(LANES):
                        blocked[v, c * LANES + j] = 0
            for v in range(n):
                own: T.let = T.Cast("int32", node_type[v])
                begin: T.let = use_ptr[v]
                for i in range(use_ptr[v + 1] - begin):
                    s: T.let = user[begin + i]
                    for c in range(chunks):
                        for j in T.vectorized(LANES):
                            blocked[s, c * LANES + j] += T.Select(
                                c * LANES + j == own, 1, T.min(blocked[v, c * LANES + j], 1)
                            )
                if blocked[v, own] == 0:
                    typewise[own] += 1
        for v in range(n):
            if node[v, WAITS] == 0:
                push(v)

        batch_ptr[0] = 0
        while executed < n and going == 1:
            if missing == 1 or rule == LOOKAHEAD or encoding == TIGHT:
                if with_heights == 0:
                    # From now on reach[u, x] is the largest height_x of a ready node of type u.
                    typewise_heights(n, chunks, node_type, use_ptr, user, height)
                    for u in range(t):
                        for c in range(chunks):
                            for j in T.vectorized(LANES):
                                reach[u, c * LANES + j] = 0
                        for i in range(tail[u] - head[u]):
                            v: T.let = queue[head[u] + i]
                            for c in range(chunks):
                                for j in T.vectorized(LANES):
                                    reach[u, c * LANES + j] = T.max(reach[u, c * LANES + j], height[v, c * LANES + j])
                    with_heights = 1
                # tight[u] = 1 if all ready nodes of greatest height_u are of type u: running it lowers the bound.
                for c in range(chunks):
                    for j in T.vectorized(LANES):
                        reach[t, c * LANES + j] = 0
                for u in range(t):
                    if tail[u] > head[u]:
                        for c in range(chunks):
                            for j in T.vectorized(LANES):
                                reach[t, c * LANES + j] = T.max(
                                    reach[t, c * LANES + j],
                                    T.Select(c * LANES + j == u, 0, reach[u, c * LANES + j]),
                                )
                for u in range(t):
                    tight[u] = T.Select(reach[u, u] > reach[t, u], 1, 0)

            chosen = -1
            if not learning:
                if missing == 1 or rule == LOOKAHEAD:
                    # Tight types first, then the type with most ready nodes, then the smallest type id.
                    for u in range(t):
                        if tail[u] > head[u]:
                            score: T.let = T.Cast("int64", tight[u]) * T.int64(4294967296) + T.Cast(
                                "int64", tail[u] - head[u]
                            )
                            if chosen < 0 or score > best_score:
                                chosen = u
                                best_score = score
                elif rule == GIVEN:
                    chosen = T.Cast("int32", batch_type[batches])
                    if tail[chosen] == head[chosen]:
                        chosen = -1
                elif rule == AGENDA:
                    for u in range(t):
                        if tail[u] > head[u]:
                            if chosen < 0:
                                chosen = u
                            else:
                                # Averages as fractions: sum of depths over number of nodes.
                                mine: T.let = io[IO_SLOTS + u] * T.Cast("int64", typewise[chosen])
                                other: T.let = io[IO_SLOTS + chosen] * T.Cast("int64", typewise[u])
                                if mine < other:
                                    chosen = u
                elif rule == RATIO:
                    for u in range(t):
                        if tail[u] > head[u]:
                            if chosen < 0:
                                chosen = u
                            else:
                                size: T.let = T.Cast("int64", tail[u] - head[u])
                                least: T.let = T.Cast("int64", tail[chosen] - head[chosen])
                                mine: T.let = size * T.Cast("int64", typewise[chosen])
                                other: T.let = least * T.Cast("int64", typewise[u])
                                if mine > other or (mine == other and size > least):
                                    chosen = u
            if rule >= FSM and missing == 0:
                # word[:length] = the state.
                length = 0
                if encoding == BASE or encoding == MAX:
                    most = -1
                    for u in range(t):
                        if tail[u] > head[u]:
                            word[length] = u
                            length += 1
                            if most < 0:
                                most = u
                            elif tail[u] - head[u] > tail[most] - head[most]:
                                most = u
                    if encoding == MAX:
                        word[length] = most
                        length += 1
                else:
                    # The ranking of the step before is nearly right: insertion sort, largest frontier first.
                    for i in range(t):
                        moving: T.let = ranking[i]
                        size: T.let = tail[moving] - head[moving]
                        at = i
                        searching = 1
                        while searching == 1:
                            searching = 0
                            if at > 0:
                                left: T.let = ranking[at - 1]
                                left_size: T.let = tail[left] - head[left]
                                if left_size < size or (left_size == size and left > moving):
                                    ranking[at] = left
                                    at -= 1
                                    searching = 1
                        ranking[at] = moving
                    for i in range(t):
                        u: T.let = ranking[i]
                        if tail[u] > head[u]:
                            word[length] = T.Select(encoding == TIGHT, u * 2 + tight[u], u)
                            length += 1
                # `slot` = where the table has the state, or would have it.
                code = T.uint64(HASH_FACTOR)
                for i in range(length):
                    code = (code ^ T.Cast("uint64", word[i] + 1)) * T.uint64(HASH_FACTOR)
                    code = code ^ (code >> T.uint64(32))
                if code == T.uint64(0):
                    code = T.uint64(1)
                slot = T.Cast("int32", code & T.Cast("uint64", slots - 1))
                while key[slot] != code and key[slot] != T.uint64(0):
                    slot = (slot + 1) & (slots - 1)
                if not learning:
                    if key[slot] == code:
                        # Two states of one hash were never seen, but must not loop for ever: act on ready types only.
                        if tail[action[slot]] > head[action[slot]]:
                            chosen = action[slot]
                    if chosen < 0 and length > 0:
                        missing = 1
                        misses += 1
                elif length > 0:
                    if key[slot] != code:
                        key[slot] = code
                        states += 1
                        rows[slot, 2 * t] = T.Cast("int64", length)
                        for i in range(length):
                            rows[slot, 2 * t + 1 + i] = T.Cast("int64", word[i])
                        for u in range(t):
                            rows[slot, u] = T.int64(0)
                            rows[slot, t + u] = T.int64(0)
                    if rule == REPLAY:
                        chosen = T.Cast("int32", batch_type[batches])
                        if tail[chosen] == head[chosen]:
                            chosen = -1
                    else:
                        # 64 random bits (splitmix64): the high half decides whether to explore, the low half where.
                        mixed = T.Cast("uint64", io[RANDOM]) + T.uint64(INCREMENT)
                        io[RANDOM] = T.Cast("int64", mixed)
                        mixed = (mixed ^ (mixed >> T.uint64(FIRST_SHIFT))) * T.uint64(FIRST_FACTOR)
                        mixed = (mixed ^ (mixed >> T.uint64(SECOND_SHIFT))) * T.uint64(SECOND_FACTOR)
                        mixed = mixed ^ (mixed >> T.uint64(LAST_SHIFT))
                        if (mixed >> T.uint64(32)) < T.Cast("uint64", io[EPSILON]):
                            ready_types = 0
                            for u in range(t):
                                if tail[u] > head[u]:
                                    ready_types += 1
                            skip = T.Cast(
                                "int32", ((mixed & T.uint64(LOW_BITS)) * T.Cast("uint64", ready_types)) >> T.uint64(32)
                            )
                            for u in range(t):
                                if tail[u] > head[u]:
                                    if skip == 0:
                                        chosen = u
                                    skip -= 1
                        else:
                            best_value(slot)
                            chosen = top
                    if chosen >= 0:
                        rows[slot, t + chosen] += T.int64(1)
                    if rule == LEARN:
                        trace_slot[batches] = slot
                        trace_reward[batches] = (
                            T.Cast(
                                "int32",
                                T.truncdiv(
                                    io[ALPHA] * T.Cast("int64", tail[chosen] - head[chosen]),
                                    T.Cast("int64", typewise[chosen]),
                                ),
                            )
                            - UNIT
                        )

            if chosen >= 0:
                # Run the whole frontier of the chosen type.
                missing = 0
                begin: T.let = head[chosen]
                size: T.let = tail[chosen] - begin
                head[chosen] = begin + size
                if with_heights == 1:
                    for c in range(chunks):
                        for j in T.vectorized(LANES):
                            reach[chosen, c * LANES + j] = 0
                for i in range(size):
                    v: T.let = queue[begin + i]
                    node[v, BATCH] = batches
                    use: T.let = node[v, USES]
                    for k in range(node[v + 1, USES] - use):
                        s: T.let = user[use + k]
                        waits: T.let = node[s, WAITS] - 1
                        node[s, WAITS] = waits
                        if waits == 0:
                            push(s)
                if with_typewise == 1:
                    # The users of what ran, through nodes of other types, have one such ancestor less.
                    typewise[chosen] -= size
                    for i in range(size):
                        depth_of_stack = 1
                        stack[0] = queue[begin + i]
                        while depth_of_stack > 0:
                            depth_of_stack -= 1
                            v: T.let = stack[depth_of_stack]
                            use: T.let = node[v, USES]
                            for k in range(node[v + 1, USES] - use):
                                s: T.let = user[use + k]
                                blocked[s, chosen] -= 1
                                if blocked[s, chosen] == 0:
                                    if node[s, TYPE] == chosen:
                                        typewise[chosen] += 1
                                    else:
                                        stack[depth_of_stack] = s
                                        depth_of_stack += 1
                executed += size
                batch_type[batches] = T.Cast("int16", chosen)
                batches += 1
                batch_ptr[batches] = executed
            elif missing == 0:
                going = 0  # nothing is ready: a cycle

        if learning:
            if rule == LEARN and going == 1:
                for step in range(batches):
                    until: T.let = T.min(step + T.Cast("int32", io[NSTEP]), batches)
                    total = T.int64(0)
                    for k in range(until - step):
                        total += T.Cast("int64", trace_reward[step + k])
                    if until < batches:
                        best_value(trace_slot[until])
                        total += rows[trace_slot[until], top]
                    acted: T.let = T.Cast("int32", batch_type[step])
                    old: T.let = rows[trace_slot[step], acted]
                    rows[trace_slot[step], acted] = old + (((total - old) * io[RATE]) >> T.int64(16))
        elif going == 1:
            group_by_batch(n, batches, node, batch_ptr, stack, order)
        io[BATCHES] = T.Cast("int64", batches)
        io[MISSES] = T.Cast("int64", misses)
        io[FAILED] = T.Cast("int64", executed < n)
        io[STATES] = T.Cast("int64", states)

    return schedule
