"""Why the batches of a type are apart: dependence, or the order in which the policy ran the types."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from edbatch_tvm.batching.bounds import heights
from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.graph import InstanceGraph


@dataclass(frozen=True)
class Gap:
    """Why the nodes of a batch did not run in the batch of their type before it; each node counts once.

    Attributes
    ----------
    batch, previous : int
    dependent : int
        Nodes that a path leads to from a node of the previous batch: no schedule runs the two together.
    waiting : int
        Other nodes, for which an operand of another type was missing: had that type run earlier, they could have run.
    ready : int
        Nodes that could have run; 0 in a schedule that always runs the whole frontier of a type.
    waited_for : dict of str to int
        The cells that computed the missing operands of `waiting`, and how many operands.
    """

    batch: int
    previous: int
    dependent: int
    waiting: int
    ready: int
    waited_for: dict[str, int] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class TypeBatches:
    """The batches of one type.

    Attributes
    ----------
    cell : str
    nodes, batches, largest : int
        Nodes, batches, and nodes of the largest batch.
    longest_path : int
        Largest number of nodes of the type on one path: they never share a batch, so there is no schedule with fewer
        batches of the type.
    gaps : tuple of Gap
        One for each batch but the first.
    """

    cell: str
    nodes: int
    batches: int
    largest: int
    longest_path: int
    gaps: tuple[Gap, ...]

    @property
    def above_path(self) -> int:
        """Batches more than the longest path asks for: what the order of the types costs."""
        return self.batches - self.longest_path

    def total(self, kind: str) -> int:
        """Nodes that are ``dependent``, ``waiting`` or ``ready``, over all gaps."""
        return sum(getattr(gap, kind) for gap in self.gaps)

    @property
    def waited_for(self) -> dict[str, int]:
        """The cells that waiting nodes waited for, most operands first."""
        counts: Counter[str] = Counter()
        for gap in self.gaps:
            counts.update(gap.waited_for)
        return dict(counts.most_common())


def find_batch_gaps(graph: InstanceGraph, schedule: Schedule) -> list[TypeBatches]:
    """For every type of `graph` that has nodes: its batches in `schedule`, and why they are not fewer.

    Parameters
    ----------
    graph : InstanceGraph
    schedule : Schedule
        A valid schedule of `graph`.

    Examples
    --------
    >>> from edbatch_tvm.batching import schedule
    >>> graph = InstanceGraph.from_arrays([0, 0, 1, 0], [0, 0, 0, 1, 2], [0, 2])
    >>> batches, _ = schedule(graph, "depth")
    >>> first, second = find_batch_gaps(graph, batches)
    >>> first.batches, first.longest_path, first.gaps[0]
    (2, 2, Gap(batch=2, previous=0, dependent=1, waiting=0, ready=0, waited_for={}))
    """
    batch_of, last = _history(graph, schedule)
    path = heights(graph).max(axis=0, initial=0)
    sizes = np.diff(schedule.batch_ptr)
    found = []
    for type_id in np.flatnonzero(graph.type_count).tolist():
        batches = np.flatnonzero(schedule.batch_type == type_id).tolist()
        gaps = [
            _gap(graph, schedule, batch_of, last[:, type_id], rank, before, batch)
            for rank, (before, batch) in enumerate(pairwise(batches))
        ]
        found.append(
            TypeBatches(
                graph.type_names[type_id],
                int(graph.type_count[type_id]),
                len(batches),
                int(sizes[batches].max()),
                int(path[type_id]),
                tuple(gaps),
            )
        )
    return found


def _history(graph: InstanceGraph, schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """Batch of each node; and for each node and type the last batch of the type with an ancestor, -1 if none.

    Batches are counted within their type in the second.
    """
    batch_of = np.empty(graph.num_nodes, np.int64)
    last = np.full((graph.num_nodes, graph.num_types), -1, np.int32)
    reach = last.copy()  # the same with the node itself among its ancestors
    rank = [0] * graph.num_types
    for batch, type_id in enumerate(schedule.batch_type.tolist()):
        nodes = schedule.nodes(batch)
        batch_of[nodes] = batch
        owner, producers = _operands(graph, nodes)
        np.maximum.at(last, owner, reach[producers])
        reach[nodes] = last[nodes]
        reach[nodes, type_id] = rank[type_id]
        rank[type_id] += 1
    return batch_of, last


def _operands(graph: InstanceGraph, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The operands of `nodes` that other nodes compute: who reads, and whose value."""
    begin = graph.operand_ptr[nodes]
    count = graph.operand_ptr[nodes + 1] - begin
    first = np.cumsum(count) - count
    at = np.arange(count.sum()) + np.repeat(begin - first, count)
    owner, producers = np.repeat(nodes, count), graph.operand_node[at]
    return owner[producers >= 0], producers[producers >= 0]


def _gap(
    graph: InstanceGraph,
    schedule: Schedule,
    batch_of: np.ndarray,
    last: np.ndarray,
    rank: int,
    previous: int,
    batch: int,
) -> Gap:
    """The gap between `previous`, number `rank` of its type, and the next batch of the type."""
    nodes = schedule.nodes(batch)
    independent = nodes[last[nodes] < rank]
    owner, producers = _operands(graph, independent)
    late = batch_of[producers] > previous
    waiting = len(np.unique(owner[late]))
    counts = np.bincount(graph.node_type[producers[late]], minlength=graph.num_types)
    waited_for = {graph.type_names[t]: int(counts[t]) for t in np.argsort(-counts, kind="stable") if counts[t]}
    dependent = len(nodes) - len(independent)
    return Gap(batch, previous, dependent, waiting, len(independent) - waiting, waited_for)
