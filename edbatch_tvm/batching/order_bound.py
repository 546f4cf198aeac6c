"""A tighter lower bound, from the order in which batches of different types must come."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

from edbatch_tvm.batching.bounds import heights

if TYPE_CHECKING:
    from edbatch_tvm.graph import InstanceGraph

VECTORS = 2000
"""Numbers of batches per type that are tried at most."""


def order_bound(graph: InstanceGraph, vectors: int = VECTORS) -> int:
    """A number of batches that no schedule can go below, at least :func:`~edbatch_tvm.batching.lower_bound`.

    The simple bound allows each type as many batches as its longest chain has nodes and adds these up, as if the
    batches could always be put into an order. This one asks whether they can.

    Proof. Take a schedule with ``n_t`` batches of type t; let ``t:i`` be the i-th of them. A node u of type t that
    ends a path with i nodes of type t runs in ``t:i`` or later. Let r > 0 be the largest number of nodes of another
    type s on a path that starts at u. The first of these, v, is followed by r - 1 more that need batches of their
    own, so v runs in ``s:(n_s - r + 1)`` or earlier. u runs before v, hence ``t:i`` comes before ``s:(n_s - r +
    1)``. These relations, and ``t:i`` before ``t:(i + 1)``, hold for positions in a sequence, so they have no
    cycle.

    Now let a vector of numbers have a cycle. Its relations lead to batches of certain types s, and stay as they are
    while no ``n_s`` of these grows, however the other numbers grow. So every schedule that has at least these
    numbers has more of one of these types. Begin with the longest chains, which every schedule has at least, and
    grow one such type at a time, in all ways: every schedule stays above some vector, up to one without a cycle.
    Vectors are looked at by rising sum; the sum of the first without a cycle is the bound, and the sum reached when
    the work is cut short is one too.

    Parameters
    ----------
    graph : InstanceGraph
    vectors : int
        Largest number of vectors to look at.

    Examples
    --------
    Two chains, a-b and b-a: with one batch of each type they cannot both run.

    >>> from edbatch_tvm.graph import InstanceGraph
    >>> order_bound(InstanceGraph.from_arrays([0, 1, 1, 0], [0, 0, 1, 1, 2], [0, 2]))
    3
    """
    if not graph.num_nodes:
        return 0
    reach = _reach(graph)
    first = tuple(len(rows) for rows in reach)
    queue, seen = [(sum(first), first)], {first}
    for _ in range(vectors):
        total, numbers = heapq.heappop(queue)
        to_grow = _types_of_a_cycle(reach, numbers)
        if not to_grow:
            return total
        for t in to_grow:
            grown = (*numbers[:t], numbers[t] + 1, *numbers[t + 1 :])
            if grown not in seen:
                seen.add(grown)
                heapq.heappush(queue, (total + 1, grown))
    return queue[0][0]


def _reach(graph: InstanceGraph) -> list[np.ndarray]:
    """For each type t an array whose entry [i - 1, s] is the largest height_s of a type-t node of t-depth i."""
    height = heights(graph)
    depth = typewise_depths(graph)
    reach = []
    for t in range(graph.num_types):
        nodes = graph.nodes_of(t)
        rows = np.zeros((int(depth[nodes].max(initial=0)), graph.num_types), np.int64)
        np.maximum.at(rows, depth[nodes] - 1, height[nodes])
        rows[:, t] = 0
        reach.append(rows)
    return reach


def typewise_depths(graph: InstanceGraph) -> np.ndarray:
    """Largest number of nodes of a node's own type on a path that ends at it; int64[nodes]."""
    own = heights(reversed_graph(graph))[::-1]
    return own[np.arange(graph.num_nodes), graph.node_type].astype(np.int64)


def reversed_graph(graph: InstanceGraph) -> InstanceGraph:
    """The graph with all edges reversed; node v becomes ``n - 1 - v``."""
    from edbatch_tvm.graph import InstanceGraph, require_checked

    require_checked(graph)
    last = graph.num_nodes - 1
    user = np.repeat(np.arange(graph.num_nodes), np.diff(graph.operand_ptr))
    known = graph.operand_node >= 0
    new_user, new_operand = last - graph.operand_node[known], last - user[known]
    order = np.argsort(new_user, kind="stable")
    pointer = np.searchsorted(new_user[order], np.arange(graph.num_nodes + 1))
    turned = InstanceGraph(
        np.ascontiguousarray(graph.node_type[::-1]),
        pointer.astype(np.int32),
        new_operand[order].astype(np.int32),
        type_label=np.arange(graph.num_types),
    )
    turned.checked = True
    return turned


def _types_of_a_cycle(reach: list[np.ndarray], numbers: tuple[int, ...]) -> set[int]:
    """Types that relations of some cycle lead to from another type; empty if there is no cycle.

    A sequence is built greedily: each type's next batch goes as soon as nothing has to come before it. Batch ``s:k``
    has to wait for every ``t:i`` whose relation leads to ``s:k`` or an earlier batch of s.
    """
    types = range(len(numbers))
    placed = [0] * len(numbers)
    # waits[s][k, t] = batches of t that have to come before the k-th of s (0 first).
    waits = []
    for s in types:
        rows = np.zeros((numbers[s] + 1, len(numbers)), np.int64)
        for t in types:
            if t != s and len(reach[t]):
                r = reach[t][:, s]
                related = r > 0
                np.maximum.at(rows[:, t], numbers[s] - r[related], np.flatnonzero(related) + 1)
        waits.append(np.maximum.accumulate(rows, axis=0).tolist())
    progress = True
    while progress:
        progress = False
        for s in types:
            while placed[s] < numbers[s] and all(placed[t] >= need for t, need in enumerate(waits[s][placed[s]])):
                placed[s] += 1
                progress = True
    # What could not be placed waits for another such batch: follow one wait after another until one comes again.
    stuck = [s for s in types if placed[s] < numbers[s]]
    if not stuck:
        return set()
    path = [stuck[0]]
    while path.count(path[-1]) < 2:
        needs = waits[path[-1]][placed[path[-1]]]
        path.append(next(t for t, need in enumerate(needs) if placed[t] < need))
    return set(path[path.index(path[-1]) : -1])
