"""Policy ``search``: beam search over schedules by the remaining bound, for schedules that will be used often."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from time import perf_counter

import numpy as np

from edbatch_tvm.batching import backend
from edbatch_tvm.batching.bounds import lower_bound
from edbatch_tvm.batching.frontier import Frontier
from edbatch_tvm.batching.policy import Policy, Run, register_policy
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


class SearchPolicy(Policy):
    """Beam search, the beam growing up to a width.

    All states of a beam took the same number of steps. Each is continued by every ready type; kept are the children of
    least remaining bound, then of most nodes that ran. The remaining bound is the sum over the types of the greatest
    typewise height of a ready node, see :meth:`Frontier.tight`. Two states that ran the same nodes are one.

    Parameters
    ----------
    width : int
        Largest width. Beams of width 8, 64, ... are tried before and the best schedule is kept, so that there is one
        at any time.
    seconds : float, optional
        Start no wider beam after this time.
    progress : callable, optional
        Called after each beam.

    Raises
    ------
    PolicyError
        If the width is not positive.
    """

    name = "search"

    def __init__(
        self, width: int = WIDTH, seconds: float | None = None, progress: SearchProgress | None = None
    ) -> None:
        if width < 1:
            raise PolicyError(f"a beam of width {width}", "1 or more")
        self.width = width
        self.seconds = seconds
        self.progress = progress

    @property
    def identity(self) -> Hashable:
        """Name, width and time."""
        return self.name, self.width, self.seconds

    def __repr__(self) -> str:
        return f"SearchPolicy(width={self.width}, seconds={self.seconds})"

    def run(self, graph: InstanceGraph) -> Run:
        """Schedule `graph`."""
        return Run(schedule_of_types(graph, self.types(graph)), f"{self.name}-{self.width}")

    def types(self, graph: InstanceGraph) -> np.ndarray:
        """Types of the batches of the best schedule found; int16[batches]."""
        begin = perf_counter()
        bound = lower_bound(graph)
        best: np.ndarray | None = None
        for width in self._widths(graph):
            found = beam_search(graph, width)
            if best is None or len(found) < len(best):
                best = found
            if self.progress is not None:
                self.progress(width, len(best), bound)
            if len(best) == bound or (self.seconds is not None and perf_counter() - begin > self.seconds):
                break
        assert best is not None
        return best

    def _widths(self, graph: InstanceGraph) -> list[int]:
        most = max(1, min(self.width, STATE_BYTES // (16 * (graph.num_nodes + 1))))
        widths = []
        width = FIRST_WIDTH
        while width < most:
            widths.append(width)
            width *= GROWTH
        return [*widths, most]


def schedule_of_types(graph: InstanceGraph, types: np.ndarray) -> Schedule:
    """The schedule that runs whole frontiers of these types, in this order."""
    kernels = backend.kernels()
    if kernels is not None:
        return Schedule.for_graph(graph, *kernels.given(graph, types))
    frontier = Frontier(graph)
    return Schedule.from_batches(graph, [(type_id, frontier.execute(type_id)) for type_id in types.tolist()])


def beam_search(graph: InstanceGraph, width: int) -> np.ndarray:
    """Types of the batches of the best schedule that one beam finds; int16[batches]."""
    kernels = backend.kernels()
    return reference_beam_search(graph, width) if kernels is None else kernels.search(graph, width)


def reference_beam_search(graph: InstanceGraph, width: int) -> np.ndarray:
    """:func:`beam_search` in plain Python."""
    beam: list[tuple[Frontier, list[int], frozenset[int]]] = [(Frontier(graph), [], frozenset())]
    while all(frontier.remaining for frontier, _, _ in beam):
        children = []
        for index, (frontier, _, ran) in enumerate(beam):
            tight, bound = frontier.tight(), frontier.remaining_bound()
            for t in range(frontier.num_types):
                if frontier.size[t]:
                    left = (bound - tight[t], frontier.remaining - frontier.size[t])
                    children.append((left, index, t, ran.union(frontier.ready[t])))
        children.sort(key=lambda child: child[0])
        kept: list[tuple[Frontier, list[int], frozenset[int]]] = []
        seen: set[frozenset[int]] = set()
        for _, index, t, ran in children:
            if ran not in seen and len(kept) < width:
                seen.add(ran)
                frontier = beam[index][0].copy()
                frontier.execute(t)
                kept.append((frontier, [*beam[index][1], t], ran))
        beam = kept
    return np.array(next(types for frontier, types, _ in beam if not frontier.remaining), np.int16)


register_policy("search", SearchPolicy)
