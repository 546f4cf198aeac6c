"""Which type a scheduling kernel runs next, by a rule: each sets ``s.chosen``, or leaves -1 if nothing is ready.

`s` is the kernel's :class:`~edbatch_tvm.native.tir.schedule_loop.ScheduleLoop`.
"""

# ruff: noqa: D103
# mypy: ignore-errors

from edbatch_tvm.native.constants import IO_SLOTS
from edbatch_tvm.native.tir.depths_and_heights import longest_depths
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T


@inlined
def by_lookahead(s):
    # Tight types first, then the type with most ready nodes, then the smallest type id.
    best = T.int64(0)
    for u in range(s.t):
        if s.tail[u] > s.head[u]:
            score: T.let = T.Cast("int64", s.tight[u]) * T.int64(4294967296) + T.Cast("int64", s.tail[u] - s.head[u])
            if s.chosen < 0 or score > best:
                s.chosen = u
                best = score


@inlined
def given(s):
    s.chosen = T.Cast("int32", s.batch_type[s.batches])
    if s.tail[s.chosen] == s.head[s.chosen]:
        s.chosen = -1


@inlined
def average_depths(s):
    # As fractions: sums of depths in `io`, numbers of nodes in `typewise`.
    longest_depths(s.n, s.use_ptr, s.user, s.stack)
    for u in range(s.t):
        s.io[IO_SLOTS + u] = T.int64(0)
        s.typewise[u] = 0
    for v in range(s.n):
        s.io[IO_SLOTS + T.Cast("int32", s.node_type[v])] += T.Cast("int64", s.stack[v])
        s.typewise[T.Cast("int32", s.node_type[v])] += 1


@inlined
def by_agenda(s):
    # The type of least average depth.
    for u in range(s.t):
        if s.tail[u] > s.head[u]:
            if s.chosen < 0:
                s.chosen = u
            else:
                mine: T.let = s.io[IO_SLOTS + u] * T.Cast("int64", s.typewise[s.chosen])
                other: T.let = s.io[IO_SLOTS + s.chosen] * T.Cast("int64", s.typewise[u])
                if mine < other:
                    s.chosen = u


@inlined
def by_ratio(s):
    # The type with the largest part of its typewise frontier ready, then the one with most ready nodes.
    for u in range(s.t):
        if s.tail[u] > s.head[u]:
            if s.chosen < 0:
                s.chosen = u
            else:
                size: T.let = T.Cast("int64", s.tail[u] - s.head[u])
                least: T.let = T.Cast("int64", s.tail[s.chosen] - s.head[s.chosen])
                mine: T.let = size * T.Cast("int64", s.typewise[s.chosen])
                other: T.let = least * T.Cast("int64", s.typewise[u])
                if mine > other or (mine == other and size > least):
                    s.chosen = u
