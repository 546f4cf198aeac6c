"""Beam search over schedules; see :mod:`edbatch_tvm.batching.search`.

:class:`BeamSearch` declares what the parts share: :mod:`beam_states` has the states of the beam, :mod:`candidate_heap`
the children of a step.
"""

# ruff: noqa: D103
# mypy: ignore-errors

from typing import Any

from edbatch_tvm.native.constants import BATCHES, COST, DROPPED, FAILED, LANES
from edbatch_tvm.native.tir.beam_states import copy_state, run_type, start_state
from edbatch_tvm.native.tir.buffers import GraphArguments, argument, constant, scalar, size
from edbatch_tvm.native.tir.candidate_heap import offer_candidate, sort_candidates
from edbatch_tvm.native.tir.depths_and_heights import typewise_heights
from edbatch_tvm.native.tir.inlined import inlined
from edbatch_tvm.tvm_compat import script_tirx as T


class BeamSearch:
    """Arguments, tables of states and scalars of the kernel."""

    def __init__(
        self,
        width: Any,
        t: Any,
        limit: Any,
        graph: GraphArguments,
        height: Any,
        states: tuple[Any, Any, Any, Any, Any, Any],
        costs: tuple[Any, Any],
        children: tuple[Any, Any],
        results: tuple[Any, Any, Any],
    ) -> None:
        self.width, self.t = width, t
        n = self.n = graph.n
        self.node_type, self.use_ptr, self.user, self.waits = graph.node_type, graph.use_ptr, graph.user, graph.waits
        p, rows = size("p"), size("rows")
        self.height = argument(height, (n, p))
        # States: row s is state s of this step's beam, row `width + s` one of the next's, and the other way round.
        indegree, queue, reach, marks, small, cost = states
        self.indegree = argument(indegree, (rows, n))
        self.queue = argument(queue, (rows, n))
        self.reach = argument(reach, (size("reach_rows"), p))  # t + 1 rows per state
        # Hash of what ran, and for each type the exclusive or of its ready nodes' keys.
        self.marks = argument(marks, (rows, t + 1), "uint64")
        # For each type head, tail, and whether it is tight; then the number of nodes that ran.
        self.small = argument(small, (rows, 3 * t + 1))
        # Cost of the batches so far, and the least cost of those to come.
        self.cost = argument(cost, (rows, 2), "int64")
        # Cost of a batch by type and size, the last column for all larger ones; the least cost of one of each type.
        price, weight = costs
        self.sizes = size("sizes")
        self.price = argument(price, (t, self.sizes), "int64")
        self.weight = argument(weight, (t,), "int64")
        candidate, seen = children
        self.candidate = argument(candidate, (width, 4), "int64")
        # Hashes of all children of this step: two that ran the same nodes at the same cost are one.
        self.slots = size("slots")
        self.seen = argument(seen, (self.slots,), "uint64")
        trace, batch_type, io = results
        self.trace = argument(trace, (n, width))
        self.batch_type = argument(batch_type, (n,), "int16")
        self.io = argument(io, (size("io_size"),), "int64")

        self.chunks = constant("chunks", T.truncdiv(p, LANES))
        self.old = scalar("old", 0)  # first row of this step's beam
        self.size = scalar("size", 1)  # states in it
        self.steps = scalar("steps", 0)
        self.limit = scalar("limit", limit, "int64")
        self.kept = scalar("kept", 0)  # candidates
        self.met = scalar("met", T.int64(0), "int64")  # children of this step
        self.dropped = scalar("dropped", 0)
        self.best_steps = scalar("best_steps", 0)  # of the best complete state, and its number in the beam
        self.best_state = scalar("best_state", 0)
        self.complete = scalar("complete", 0)


@inlined
def find_candidates(b):
    # The best children: least cost with what is to come, then most nodes that ran, then the order they are met in.
    b.kept = 0
    b.met = T.int64(0)
    for i in range(b.slots):
        b.seen[i] = T.uint64(0)
    for i in range(b.size):
        row: T.let = b.old + i
        for u in range(b.t):
            ready: T.let = b.small[row, b.t + u] - b.small[row, u]
            if ready > 0:
                spent: T.let = b.cost[row, 0] + b.price[u, T.min(ready, b.sizes - 1)]
                total: T.let = spent + b.cost[row, 1] - b.weight[u] * T.Cast("int64", b.small[row, 2 * b.t + u])
                left: T.let = T.Cast("int64", b.n - b.small[row, 3 * b.t] - ready)
                rank: T.let = left * T.int64(4294967296) + b.met
                b.met += T.int64(1)
                if total <= b.limit:
                    offer_candidate(b, row, u, spent, total, rank)


@inlined
def make_next_beam(b):
    new: T.let = b.width - b.old
    for i in range(b.kept):
        row: T.let = T.Cast("int32", b.candidate[i, 2])
        u: T.let = T.Cast("int32", b.candidate[i, 3])
        child: T.let = new + i
        b.trace[b.steps, i] = (row - b.old) * b.t + u
        copy_state(b, row, child)
        run_type(b, row, child, u)
        if b.small[child, 3 * b.t] == b.n and b.cost[child, 0] <= b.limit:
            # From here on only what costs less.
            b.complete = 1
            b.best_steps = b.steps + 1
            b.best_state = i
            b.limit = b.cost[child, 0] - T.int64(1)
    b.old = new
    b.size = b.kept
    b.steps += 1


@inlined
def write_batches(b):
    # Back from the state that is complete.
    at_state = b.best_state
    for k in range(b.best_steps):
        code: T.let = b.trace[b.best_steps - 1 - k, at_state]
        b.batch_type[b.best_steps - 1 - k] = T.Cast("int16", T.truncmod(code, b.t))
        at_state = T.truncdiv(code, b.t)
    b.io[BATCHES] = T.Cast("int64", b.best_steps)
    b.io[FAILED] = T.Cast("int64", b.complete == 0)
    b.io[DROPPED] = T.Cast("int64", b.dropped)
    b.io[COST] = b.limit + T.int64(1)


@T.prim_func
def search(
    width: T.int32,
    t: T.int32,
    limit: T.int64,
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
    graph = T.meta_var(GraphArguments(node_type_, use_ptr_, user_, waits_))
    states = T.meta_var((indegree_, queue_, reach_, marks_, small_, cost_))
    costs = T.meta_var((price_, weight_))
    children = T.meta_var((candidate_, seen_))
    results = T.meta_var((trace_, batch_type_, io_))
    b = T.meta_var(BeamSearch(width, t, limit, graph, height_, states, costs, children, results))

    typewise_heights(b.n, b.chunks, b.node_type, b.use_ptr, b.user, b.height)
    start_state(b)
    while b.size > 0:
        find_candidates(b)
        sort_candidates(b)
        make_next_beam(b)
    write_batches(b)
