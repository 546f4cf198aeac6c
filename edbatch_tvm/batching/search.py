"""Policy ``search``: beam search over schedules by the remaining bound, for schedules that will be used often."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from edbatch_tvm.batching import native_kernels
from edbatch_tvm.batching.bounds import lower_bound
from edbatch_tvm.batching.cost_model import CostTable
from edbatch_tvm.batching.frontier import Frontier
from edbatch_tvm.batching.integer_costs import UNLIMITED, IntegerCosts
from edbatch_tvm.batching.order_bound import reversed_graph
from edbatch_tvm.batching.policy import Policy, Run, get_policy, register_policy
from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.errors import PolicyError
from edbatch_tvm.graph import InstanceGraph

WIDTH = 64
FIRST_WIDTH = 8
GROWTH = 8

STATE_BYTES = 1 << 30
"""A beam is narrowed to keep its states within so much memory."""

SearchProgress = Callable[[int, int, int], None]
"""Called with a width, the least number of batches so far, and the bound."""


RULES = ("agenda", "ratio")
"""Rules whose schedules the search has to beat; it never ends above them."""


class SearchPolicy(Policy):
    """Beam search with beams of growing width.

    All states of a beam have taken the same number of steps. Each is continued by every ready type. The search keeps
    the children with the least sum of cost and remaining bound; among equals, those that ran the most nodes. The
    remaining bound is the greatest height_t of a ready node, summed over the types t (with costs, times the cost of a
    batch of t); see :meth:`Frontier.tight`. Two states that ran the same nodes at the same cost are one. A state
    that cannot beat the best known schedule is dropped. If no other state was, that schedule is optimal, and no wider
    beam is tried.

    Where batches are counted, each beam is followed by one on the graph with all edges reversed. A schedule read
    backwards is a schedule of that graph, so both have the same optimum, but a beam from the other end makes other
    errors.

    Parameters
    ----------
    width : int, optional
        Largest width; None for as wide as necessary, within :data:`STATE_BYTES`. Beams of width 8, 64, ... are tried
        before, and the best schedule is kept.
    seconds : float, optional
        Start no wider beam after this time.
    progress : callable, optional
        Called after each beam.
    costs : CostTable, optional
        The time of batches, to be minimized; by default their number is.

    Raises
    ------
    PolicyError
        If the width is not positive.
    """

    name = "search"

    def __init__(
        self,
        width: int | None = WIDTH,
        seconds: float | None = None,
        progress: SearchProgress | None = None,
        costs: CostTable | None = None,
    ) -> None:
        if width is not None and width < 1:
            raise PolicyError(f"a beam of width {width}", "1 or more")
        self.width = width
        self.seconds = seconds
        self.progress = progress
        self.costs = costs

    @property
    def identity(self) -> Hashable:
        """Name, width, time and costs."""
        return self.name, self.width, self.seconds, self.costs and self.costs.digest

    def __repr__(self) -> str:
        objective = "" if self.costs is None else f", costs={self.costs!r}"
        return f"SearchPolicy(width={self.width}, seconds={self.seconds}{objective})"

    def run(self, graph: InstanceGraph) -> Run:
        """Schedule `graph`."""
        return Run(schedule_of_types(graph, self.search(graph).types), f"{self.name}-{self.width or 'unlimited'}")

    def search(self, graph: InstanceGraph) -> Found:
        """Types of the batches of the best schedule found, and whether it is optimal."""
        begin = perf_counter()
        bound = lower_bound(graph)
        integer_costs = IntegerCosts.unit(graph.num_types) if self.costs is None else self.costs.integer_costs(graph)
        best, optimal = beam_search(graph, 1, UNLIMITED, integer_costs)
        assert best is not None  # a beam without a limit reaches the end
        for rule in RULES:
            types = get_policy(rule)(graph).batch_type
            if not optimal and cost_of_types(graph, types, integer_costs) < cost_of_types(graph, best, integer_costs):
                best = types
        turned = reversed_graph(graph) if self.costs is None else None
        for width in self._widths(graph):
            if optimal or (self.costs is None and len(best) == bound):
                return Found(best, True)
            found, optimal = beam_search(graph, width, cost_of_types(graph, best, integer_costs) - 1, integer_costs)
            if found is not None:
                best = found
            if not optimal and turned is not None:
                found, optimal = beam_search(turned, width, len(best) - 1)
                if found is not None:
                    best = without_idle_steps(graph, found[::-1])
            if self.progress is not None:
                self.progress(width, len(best), bound)
            if self.seconds is not None and perf_counter() - begin > self.seconds:
                break
        return Found(best, optimal)

    def _widths(self, graph: InstanceGraph) -> list[int]:
        most = max(1, STATE_BYTES // (20 * (graph.num_nodes + 1) + 200 * graph.num_types))
        if self.width is not None:
            most = min(most, self.width)
        widths = []
        width = FIRST_WIDTH
        while width < most:
            widths.append(width)
            width *= GROWTH
        return [*widths, most]


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Attributes
    ----------
    types : int16 array of shape [batches]
        Types of the batches of the best schedule.
    optimal : bool
        Whether the search proved that there is no better one.
    """

    types: np.ndarray
    optimal: bool


def without_idle_steps(graph: InstanceGraph, types: np.ndarray) -> np.ndarray:
    """`types` without those that find no node ready."""
    frontier = Frontier(graph)
    return np.array([t for t in types.tolist() if frontier.execute(t)], np.int16)


def cost_of_types(graph: InstanceGraph, types: np.ndarray, integer_costs: IntegerCosts) -> int:
    """Cost of the schedule that runs whole frontiers of these types."""
    schedule = schedule_of_types(graph, types)
    sizes = np.diff(schedule.batch_ptr).tolist()
    return sum(integer_costs.of(t, size) for t, size in zip(schedule.batch_type.tolist(), sizes, strict=True))


def schedule_of_types(graph: InstanceGraph, types: np.ndarray) -> Schedule:
    """The schedule that runs whole frontiers of these types, in this order."""
    kernels = native_kernels.kernels()
    if kernels is not None:
        return Schedule.for_graph(graph, *kernels.given(graph, types))
    frontier = Frontier(graph)
    return Schedule.from_batches(graph, [(type_id, frontier.execute(type_id)) for type_id in types.tolist()])


def beam_search(
    graph: InstanceGraph, width: int, limit: int = UNLIMITED, integer_costs: IntegerCosts | None = None
) -> tuple[np.ndarray | None, bool]:
    """One beam.

    Parameters
    ----------
    graph : InstanceGraph
    width : int
    limit : int
        Look for schedules that cost no more than this only.
    integer_costs : IntegerCosts, optional
        Cost of batches; default 1 each.

    Returns
    -------
    types : int16 array of shape [batches], or None
        Types of the batches of the best schedule found.
    exhaustive : bool
        Whether no state was dropped for lack of room: then there is no better one.
    """
    integer_costs = integer_costs or IntegerCosts.unit(graph.num_types)
    kernels = native_kernels.kernels()
    if kernels is None:
        return reference_beam_search(graph, width, limit, integer_costs)
    return kernels.search(graph, width, limit, integer_costs)


def reference_beam_search(
    graph: InstanceGraph, width: int, limit: int, integer_costs: IntegerCosts
) -> tuple[np.ndarray | None, bool]:
    """:func:`beam_search` in plain Python."""
    beam: list[tuple[Frontier, list[int], frozenset[int], int]] = [(Frontier(graph), [], frozenset(), 0)]
    best: list[int] | None = None if graph.num_nodes else []
    exhaustive = True
    while beam:
        children = []
        for index, (frontier, _, ran, spent) in enumerate(beam):
            tight, left = frontier.tight(), int(frontier.remaining_heights() @ integer_costs.least)
            for t in range(frontier.num_types):
                if frontier.size[t]:
                    cost = spent + integer_costs.of(t, frontier.size[t])
                    total = cost + left - int(integer_costs.least[t]) * tight[t]
                    if total <= limit:
                        key = (total, frontier.remaining - frontier.size[t])
                        children.append((key, index, t, ran.union(frontier.ready[t]), cost))
        children.sort(key=lambda child: child[0])
        kept: list[tuple[Frontier, list[int], frozenset[int], int]] = []
        seen: set[tuple[frozenset[int], int]] = set()
        for _, index, t, ran, cost in children:
            if (ran, cost) in seen:
                continue
            seen.add((ran, cost))
            if len(kept) == width:
                exhaustive = False
                break
            frontier = beam[index][0].copy()
            frontier.execute(t)
            kept.append((frontier, [*beam[index][1], t], ran, cost))
            if not frontier.remaining and cost <= limit:
                best, limit = kept[-1][1], cost - 1
        beam = kept
    return None if best is None else np.array(best, np.int16), exhaustive


register_policy("search", SearchPolicy)
