"""Why the batches of a type are apart: dependence, or the order in which the policy ran the types."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from edbatch_tvm.batching.bounds import heights
from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.graph import InstanceGraph

_FEW = 8
"""Batches of up to this many nodes are inspected node by node: a NumPy call takes as long as ten nodes."""


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
    gaps = _gaps(graph, schedule)
    path = heights(graph).max(axis=0, initial=0)
    sizes = np.diff(schedule.batch_ptr)
    found = []
    for type_id in np.flatnonzero(graph.type_count).tolist():
        batches = np.flatnonzero(schedule.batch_type == type_id)
        found.append(
            TypeBatches(
                graph.type_names[type_id],
                int(graph.type_count[type_id]),
                len(batches),
                int(sizes[batches].max()),
                int(path[type_id]),
                tuple(gaps[batch] for batch in batches[1:].tolist()),
            )
        )
    return found


def _gaps(graph: InstanceGraph, schedule: Schedule) -> dict[int, Gap]:
    """The gap before every batch but the first of its type."""
    batches = len(schedule)
    previous = _previous(schedule)
    batch_of = np.empty(graph.num_nodes, np.int64)
    batch_of[schedule.order] = np.repeat(np.arange(batches), np.diff(schedule.batch_ptr))
    before = previous[batch_of]  # of each node
    follows = before >= 0
    independent = follows & (_latest_ancestor(graph, schedule) < before)
    owner = np.repeat(np.arange(graph.num_nodes), np.diff(graph.operand_ptr))
    producer = graph.operand_node
    computed = (producer >= 0) & independent[owner]
    owner, producer = owner[computed], producer[computed]
    late = batch_of[producer] > before[owner]
    owner, producer = owner[late], producer[late]
    waits = np.zeros(graph.num_nodes, bool)
    waits[owner] = True

    def count(nodes: np.ndarray) -> list[int]:
        """How many of these nodes each batch has."""
        counts: list[int] = np.bincount(batch_of[nodes], minlength=batches).tolist()
        return counts

    waited_for: dict[int, dict[str, int]] = {}
    operands, number = np.unique(
        batch_of[owner] * graph.num_types + graph.node_type[producer], return_counts=True
    )  # by batch, then by type
    for at in np.lexsort((-number, operands // graph.num_types)).tolist():
        batch, type_id = divmod(int(operands[at]), graph.num_types)
        waited_for.setdefault(batch, {})[graph.type_names[type_id]] = int(number[at])
    columns = zip(
        previous.tolist(), count(follows & ~independent), count(waits), count(independent & ~waits), strict=True
    )
    return {
        batch: Gap(batch, *column, waited_for.get(batch, {})) for batch, column in enumerate(columns) if column[0] >= 0
    }


def _previous(schedule: Schedule) -> np.ndarray:
    """For each batch the one before of its type, -1 for the first of a type."""
    order = np.argsort(schedule.batch_type, kind="stable")
    same = np.diff(schedule.batch_type[order], prepend=-1) == 0
    previous = np.full(len(schedule), -1, np.int64)
    previous[order[same]] = order[np.flatnonzero(same) - 1]
    return previous


def _latest_ancestor(graph: InstanceGraph, schedule: Schedule) -> np.ndarray:
    """For each node the latest batch with an ancestor of its own type, -1 if there is none."""
    reach = np.full((graph.num_nodes, graph.num_types), -1, np.int32)  # by type, the node itself among its ancestors
    latest = np.full(graph.num_nodes, -1, np.int32)
    pointer, producers = graph.operand_ptr.tolist(), graph.operand_node.tolist()
    bounds, order = schedule.batch_ptr.tolist(), schedule.order
    for batch, type_id in enumerate(schedule.batch_type.tolist()):
        nodes = order[bounds[batch] : bounds[batch + 1]]
        if len(nodes) <= _FEW:  # quicker one by one
            for node in nodes.tolist():
                own = reach[node]
                for value in producers[pointer[node] : pointer[node + 1]]:
                    if value >= 0:
                        np.maximum(own, reach[value], out=own)
                latest[node] = own[type_id]
                own[type_id] = batch
        else:
            owner, values = _operands(graph, nodes)
            np.maximum.at(reach, owner, reach[values])
            latest[nodes] = reach[nodes, type_id]
            reach[nodes, type_id] = batch
    return latest


def _operands(graph: InstanceGraph, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The operands of `nodes` that other nodes compute: who reads, and whose value."""
    begin = graph.operand_ptr[nodes]
    count = graph.operand_ptr[nodes + 1] - begin
    first = np.cumsum(count) - count
    at = np.arange(count.sum()) + np.repeat(begin - first, count)
    owner, producers = np.repeat(nodes, count), graph.operand_node[at]
    return owner[producers >= 0], producers[producers >= 0]
