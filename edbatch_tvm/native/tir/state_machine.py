"""Which type a scheduling kernel runs next, by a state machine; and learning one.

`s` is the kernel's :class:`~edbatch_tvm.native.tir.schedule_loop.ScheduleLoop`.
"""

# ruff: noqa: D103, SIM102, SIM114
# mypy: ignore-errors

from edbatch_tvm.batching.encoding import BASE, HASH_FACTOR, MAX, TIGHT
from edbatch_tvm.batching.fixed_point import UNIT
from edbatch_tvm.batching.splitmix import FIRST_FACTOR, FIRST_SHIFT, INCREMENT, LAST_SHIFT, SECOND_FACTOR, SECOND_SHIFT
from edbatch_tvm.native.constants import ALPHA, EPSILON, LEARN, NSTEP, RANDOM, RATE
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T

LOW_BITS = (1 << 32) - 1


@inlined
def encode_state(s):
    s.length = 0
    if s.encoding == BASE or s.encoding == MAX:
        encode_by_type(s)
    else:
        rank_types(s)
        for i in range(s.t):
            u: T.let = s.ranking[i]
            if s.tail[u] > s.head[u]:
                s.word[s.length] = T.Select(s.encoding == TIGHT, u * 2 + s.tight[u], u)
                s.length += 1


@inlined
def encode_by_type(s):
    # The ready types by their ids; `max` adds the one with most ready nodes.
    most = -1
    for u in range(s.t):
        if s.tail[u] > s.head[u]:
            s.word[s.length] = u
            s.length += 1
            # Both sides of an `or` are evaluated: no reads at -1 beside the test for it.
            if most < 0:
                most = u
            elif s.tail[u] - s.head[u] > s.tail[most] - s.head[most]:
                most = u
    if s.encoding == MAX:
        s.word[s.length] = most
        s.length += 1


@inlined
def rank_types(s):
    # The ranking of the step before is nearly right: insertion sort, largest frontier first.
    for i in range(s.t):
        moving: T.let = s.ranking[i]
        size: T.let = s.tail[moving] - s.head[moving]
        at = i
        searching = 1
        while searching == 1:
            searching = 0
            if at > 0:
                left: T.let = s.ranking[at - 1]
                left_size: T.let = s.tail[left] - s.head[left]
                if left_size < size or (left_size == size and left > moving):
                    s.ranking[at] = left
                    at -= 1
                    searching = 1
        s.ranking[at] = moving


@inlined
def find_slot(s):
    s.code = T.uint64(HASH_FACTOR)
    for i in range(s.length):
        s.code = (s.code ^ T.Cast("uint64", s.word[i] + 1)) * T.uint64(HASH_FACTOR)
        s.code = s.code ^ (s.code >> T.uint64(32))
    if s.code == T.uint64(0):
        s.code = T.uint64(1)
    s.slot = T.Cast("int32", s.code & T.Cast("uint64", s.slots - 1))
    while s.key[s.slot] != s.code and s.key[s.slot] != T.uint64(0):
        s.slot = (s.slot + 1) & (s.slots - 1)


@inlined
def act(s):
    # What the table says, if it knows the state.
    if s.key[s.slot] == s.code:
        # Two states of one hash were never seen, but must not loop for ever: act on ready types only.
        if s.tail[s.action[s.slot]] > s.head[s.action[s.slot]]:
            s.chosen = s.action[s.slot]
    if s.chosen < 0 and s.length > 0:
        s.missing = 1
        s.misses += 1


@inlined
def add_state(s):
    # A row for a state that the table has not met before.
    if s.key[s.slot] != s.code:
        s.key[s.slot] = s.code
        s.states += 1
        s.rows[s.slot, 2 * s.t] = T.Cast("int64", s.length)
        for i in range(s.length):
            s.rows[s.slot, 2 * s.t + 1 + i] = T.Cast("int64", s.word[i])
        for u in range(s.t):
            s.rows[s.slot, u] = T.int64(0)
            s.rows[s.slot, s.t + u] = T.int64(0)


@inlined
def explore_or_exploit(s):
    # 64 random bits (splitmix64): the high half decides whether to explore, the low half where.
    mixed = T.Cast("uint64", s.io[RANDOM]) + T.uint64(INCREMENT)
    s.io[RANDOM] = T.Cast("int64", mixed)
    mixed = (mixed ^ (mixed >> T.uint64(FIRST_SHIFT))) * T.uint64(FIRST_FACTOR)
    mixed = (mixed ^ (mixed >> T.uint64(SECOND_SHIFT))) * T.uint64(SECOND_FACTOR)
    mixed = mixed ^ (mixed >> T.uint64(LAST_SHIFT))
    if (mixed >> T.uint64(32)) < T.Cast("uint64", s.io[EPSILON]):
        ready_types = 0
        for u in range(s.t):
            if s.tail[u] > s.head[u]:
                ready_types += 1
        skip = T.Cast("int32", ((mixed & T.uint64(LOW_BITS)) * T.Cast("uint64", ready_types)) >> T.uint64(32))
        for u in range(s.t):
            if s.tail[u] > s.head[u]:
                if skip == 0:
                    s.chosen = u
                skip -= 1
    else:
        find_best_action(s, s.slot)
        s.chosen = s.top


@inlined
def find_best_action(s, slot):
    # `top` = the action of greatest value at a slot, the smallest type id among equals.
    # The types of a state are its distinct words (a word of `tight` is two times a type plus a bit).
    s.top = -1
    shift: T.let = T.Select(s.encoding == TIGHT, T.int64(1), T.int64(0))
    for i in range(T.Cast("int32", s.rows[slot, 2 * s.t])):
        u: T.let = T.Cast("int32", s.rows[slot, 2 * s.t + 1 + i] >> shift)
        # Both sides of an `or` are evaluated: no reads at -1 beside the test for it.
        if s.top < 0:
            s.top = u
        elif s.rows[slot, u] > s.rows[slot, s.top] or (s.rows[slot, u] == s.rows[slot, s.top] and u < s.top):
            s.top = u


@inlined
def trace(s):
    # Count the action, and note what it earns: the part of the typewise frontier that it runs, less a batch.
    if s.chosen >= 0:
        s.rows[s.slot, s.t + s.chosen] += T.int64(1)
    if s.rule == LEARN:
        s.trace_slot[s.batches] = s.slot
        s.trace_reward[s.batches] = (
            T.Cast(
                "int32",
                T.truncdiv(
                    s.io[ALPHA] * T.Cast("int64", s.tail[s.chosen] - s.head[s.chosen]),
                    T.Cast("int64", s.typewise[s.chosen]),
                ),
            )
            - UNIT
        )


@inlined
def update_values(s):
    # N-step returns of the episode, step after step.
    for step in range(s.batches):
        until: T.let = T.min(step + T.Cast("int32", s.io[NSTEP]), s.batches)
        total = T.int64(0)
        for k in range(until - step):
            total += T.Cast("int64", s.trace_reward[step + k])
        if until < s.batches:
            find_best_action(s, s.trace_slot[until])
            total += s.rows[s.trace_slot[until], s.top]
        acted: T.let = T.Cast("int32", s.batch_type[step])
        old: T.let = s.rows[s.trace_slot[step], acted]
        s.rows[s.trace_slot[step], acted] = old + (((total - old) * s.io[RATE]) >> T.int64(16))
