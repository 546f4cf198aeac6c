"""One whole schedule in one call: by a rule, by a state machine, or while learning one.

:class:`ScheduleLoop` declares what the parts share, ``schedule_loop`` makes the kernels of them: :mod:`frontiers` keeps
the ready nodes, :mod:`policy_rules` and :mod:`state_machine` choose the type that runs.
"""

# ruff: noqa: SIM102
# mypy: ignore-errors

from typing import Any

from edbatch_tvm.batching.encoding import TIGHT
from edbatch_tvm.native.constants import (
    AGENDA,
    BATCHES,
    FAILED,
    FSM,
    GIVEN,
    LANES,
    LEARN,
    LOOKAHEAD,
    MISSES,
    RATIO,
    REPLAY,
    STATES,
)
from edbatch_tvm.native.tir.buffers import GraphArguments, ScheduleResults, Workspace, argument, constant, scalar, size
from edbatch_tvm.native.tir.frontiers import (
    count_typewise_frontiers,
    find_tight_types,
    group_by_batch,
    read_nodes,
    run_frontier,
    split_queue,
    start_heights,
)
from edbatch_tvm.native.tir.policy_rules import average_depths, by_agenda, by_lookahead, by_ratio, given
from edbatch_tvm.native.tir.state_machine import (
    act,
    add_state,
    encode_state,
    explore_or_exploit,
    find_slot,
    trace,
    update_values,
)
from edbatch_tvm.tvm_compat import script_tirx as T


class ScheduleLoop:
    """Arguments, working storage and scalars of a scheduling kernel.

    Every field is a buffer or a scalar of the kernel, apart from `learning`: a test of that is decided while parsing.
    """

    def __init__(
        self,
        learning: bool,
        rule: Any,
        encoding: Any,
        t: Any,
        graph: GraphArguments,
        type_count: Any,
        table: tuple[Any, Any, Any],
        work: Any,
        results: ScheduleResults,
        io: Any,
    ) -> None:
        self.learning, self.rule, self.encoding, self.t = learning, rule, encoding, t
        n = self.n = graph.n
        self.node_type, self.use_ptr, self.user, self.waits = graph.node_type, graph.use_ptr, graph.user, graph.waits
        self.order, self.batch_ptr, self.batch_type = results.order, results.batch_ptr, results.batch_type
        self.type_count = argument(type_count, (t,), "int64")
        key, action, rows = table
        # Policy table, open addressing: key 0 is an empty slot; the number of slots is a power of two.
        self.slots = size("slots")
        self.key = argument(key, (self.slots,), "uint64")
        self.action = argument(action, (size("action_slots"),))
        # Learning, columns of each slot: t fixed-point values, t visit counts, the length of the state and its words.
        self.rows = argument(rows, (size("row_slots"), 3 * t + 2), "int64")
        # Settings and results; of the agenda rule the sum of the depths of each type, too.
        self.io = argument(io, (size("io_size"),), "int64")
        cut = Workspace(work).cut

        self.chunks = constant("chunks", T.truncdiv(t + LANES - 1, LANES))
        p = constant("p", self.chunks * LANES)
        # Once heights are known: reach[u, x] is the largest height_x of a ready node of type u. Row t is scratch.
        self.reach = cut("reach", t + 1, p)
        # What a step touches of a node lies in one cache line: nodes it waits for, first use, type, batch. Row v + 1
        # says where the uses of v end.
        self.node = cut("node", n + 1, 4)
        # The ready nodes of type u are queue[head[u]:tail[u]], in a part of the queue that has room for all of type u.
        self.queue = cut("queue", n)
        self.stack = cut("stack", n)
        self.head = cut("head", t)
        self.tail = cut("tail", t)
        self.ranking = cut("ranking", t)  # of types by the size of their frontiers, as the step before had it
        self.typewise = cut("typewise", t)  # sizes of typewise frontiers; of the agenda rule those of types
        self.tight = cut("tight", t)  # 1 if all ready nodes of greatest height_u are of type u
        self.word = cut("word", t + 2)  # word[:length] is the encoded state
        # Of each step of a learning episode.
        self.trace_slot = cut("trace_slot", T.Select(rule == LEARN, n, 0))
        self.trace_reward = cut("trace_reward", T.Select(rule == LEARN, n, 0))
        # The rules that need heights have them here; then counts of what is blocked, for those that need these.
        needs_heights = T.Or(T.Or(rule == LOOKAHEAD, rule == FSM), encoding == TIGHT)
        self.height = cut("height", T.Select(needs_heights, n, 0), p)
        # blocked[v, x] = operands of v that are, or have before them, a node of type x that did not run yet.
        self.blocked = cut("blocked", n, p)
        self.with_typewise = constant("with_typewise", T.Select(T.Or(rule == RATIO, rule == LEARN), 1, 0))

        self.with_heights = scalar("with_heights", 0)  # 1 once heights are known and `reach` is kept up to date
        self.missing = scalar("missing", 0)  # 1 when the table did not know the state: the step is taken by lookahead
        self.going = scalar("going", 1)
        self.batches = scalar("batches", 0)
        self.executed = scalar("executed", 0)
        self.misses = scalar("misses", 0)
        self.states = scalar("states", T.Cast("int32", self.io[STATES]))
        self.chosen = scalar("chosen", -1)  # the type that runs next
        self.slot = scalar("slot", 0)  # where the table has the state, or would have it
        self.code = scalar("code", T.uint64(0), "uint64")
        self.length = scalar("length", 0)
        self.top = scalar("top", -1)  # the action of greatest value at the slot last asked for


def schedule_loop(learning: bool) -> Any:
    """The kernel for the rules up to ``FSM``, or (`learning`) the one for ``LEARN`` and ``REPLAY``."""

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
        graph = T.meta_var(GraphArguments(node_type_, use_ptr_, user_, waits_))
        results = T.meta_var(ScheduleResults(graph.n, order_, batch_ptr_, batch_type_))
        table = T.meta_var((key_, action_, rows_))
        s = T.meta_var(ScheduleLoop(learning, rule, encoding, t, graph, type_count_, table, work_, results, io_))

        split_queue(s)
        read_nodes(s)
        if not learning:
            if rule == AGENDA:
                average_depths(s)
        if s.with_typewise == 1:
            count_typewise_frontiers(s)
        s.batch_ptr[0] = 0
        while s.executed < s.n and s.going == 1:
            if s.missing == 1 or rule == LOOKAHEAD or encoding == TIGHT:
                if s.with_heights == 0:
                    start_heights(s)
                find_tight_types(s)
            s.chosen = -1
            if not learning:
                if s.missing == 1 or rule == LOOKAHEAD:
                    by_lookahead(s)
                elif rule == GIVEN:
                    given(s)
                elif rule == AGENDA:
                    by_agenda(s)
                elif rule == RATIO:
                    by_ratio(s)
            if rule >= FSM and s.missing == 0:
                encode_state(s)
                find_slot(s)
                if not learning:
                    act(s)
                elif s.length > 0:
                    add_state(s)
                    if rule == REPLAY:
                        given(s)
                    else:
                        explore_or_exploit(s)
                    trace(s)
            if s.chosen >= 0:
                run_frontier(s)
            elif s.missing == 0:
                s.going = 0  # nothing is ready: a cycle

        if learning:
            if rule == LEARN and s.going == 1:
                update_values(s)
        elif s.going == 1:
            group_by_batch(s.n, s.batches, s.node, s.batch_ptr, s.stack, s.order)
        s.io[BATCHES] = T.Cast("int64", s.batches)
        s.io[MISSES] = T.Cast("int64", s.misses)
        s.io[FAILED] = T.Cast("int64", s.executed < s.n)
        s.io[STATES] = T.Cast("int64", s.states)

    return schedule
