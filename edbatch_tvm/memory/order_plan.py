"""The plan ``order``: nodes within batches in an order that makes operands contiguous, in linear time.

The batches are visited from the last to the first, so that the order of a batch is known before that of the batches it
reads. A batch whose operand comes from one earlier batch *requests* that the values it reads lie there one after the
other, in its own order. A batch grants requests from the largest to the smallest, where they fit with those granted
before: granted requests link its nodes to *runs*, and its order is run after run.

A batch that granted nothing and has one request only is *free*: it can take whatever order it finds. Its request comes
last, and asks just that the values lie together. So, at the end and from the first batch to the last, a batch that
granted nothing, and of which no operand is contiguous, takes the order of the rows it reads, if these are consecutive.
Such are the readouts of all nodes of a model.

Here is the plain Python form; :mod:`edbatch_tvm.native` has the one for every minibatch, with the same result.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.memory.batch_reads import Reads
from edbatch_tvm.memory.layout import Layout, by_slot, by_type, row_bytes, signature_of
from edbatch_tvm.memory.plan_tables import external_rows


class Request(NamedTuple):
    """What a batch asks of an earlier one.

    Attributes
    ----------
    batch : int
        The batch that is asked.
    size : int
        Bytes that the operands of this request read.
    nodes : list of int
        Nodes of that batch, in the order in which they are to lie.
    """

    batch: int
    size: int
    nodes: list[int]

    @property
    def weight(self) -> int:
        """Size to a factor of two: enough to tell large from small, and it needs no sorting."""
        return self.size.bit_length()


class Runs:
    """Nodes linked to runs; each node has at most one node before and one after it."""

    def __init__(self, nodes: int) -> None:
        self.after = [-1] * nodes
        self.before = [-1] * nodes
        self._head = list(range(nodes))  # of the run that ends at this node
        self._tail = list(range(nodes))  # of the run that begins at this node

    def link(self, sequence: list[int]) -> bool:
        """Let the nodes of `sequence` follow each other; False, and nothing linked, if that does not fit."""
        linked: list[tuple[int, int]] = []
        for left, right in pairwise(sequence):
            if self.after[left] == right:
                continue
            if self.after[left] >= 0 or self.before[right] >= 0 or self._head[left] == right:
                for one, two in reversed(linked):
                    self._unlink(one, two)
                return False
            head, tail = self._head[left], self._tail[right]
            self.after[left], self.before[right] = right, left
            self._tail[head], self._head[tail] = tail, head
            linked.append((left, right))
        return True

    def _unlink(self, left: int, right: int) -> None:
        """Take back the last link. Inside a run heads and tails are what they were before it grew."""
        head, tail = self._head[left], self._tail[right]
        self.after[left] = self.before[right] = -1
        self._tail[head], self._head[tail] = left, right

    def gather(self, nodes: list[int]) -> bool:
        """Link the runs that `nodes` consist of; False, and nothing linked, if they are not whole runs."""
        wanted = set(nodes)
        sequence = self.in_order(nodes)
        return len(nodes) == len(sequence) == len(wanted) and wanted.issuperset(sequence) and self.link(sequence)

    def in_order(self, nodes: list[int]) -> list[int]:
        """The runs that begin in `nodes`, one after the other."""
        found = []
        for node in nodes:
            if self.before[node] < 0:
                following = node
                while following >= 0:
                    found.append(following)
                    following = self.after[following]
        return found


def requests_of(reads: Reads, batch: int, nodes: list[int]) -> list[Request]:
    """What `batch` asks if its nodes are in this order; operands in a row that read the same nodes ask together."""
    found: list[Request] = []
    variadic = False
    for operand, values in reads.operands(batch, nodes):
        asked = _single_source(reads, values)
        if asked is None:
            continue
        size = len(values) * row_bytes(operand.spec)
        sources = [value // reads.stride for value in values]
        if found and found[-1].nodes == sources and operand.variadic == variadic:
            found[-1] = found[-1]._replace(size=found[-1].size + size)
        else:
            found.append(Request(asked, size, sources))
        variadic = operand.variadic
    return found


def _single_source(reads: Reads, values: list[int]) -> int | None:
    """The batch that `values` come from, if they are two or more of one slot of one batch."""
    if len(values) < 2 or values[0] < 0:
        return None
    slot, batch = values[0] % reads.stride, reads.batch_of[values[0] // reads.stride]
    for value in values:
        if value < 0 or value % reads.stride != slot or reads.batch_of[value // reads.stride] != batch:
            return None
    return batch


def reference_order(graph: InstanceGraph, schedule: Schedule) -> Layout:
    """The layout of the plan ``order``."""
    reads = Reads(graph, schedule)
    runs = Runs(graph.num_nodes)
    firm: list[list[Request]] = [[] for _ in reads.batches]
    free: list[list[Request]] = [[] for _ in reads.batches]
    granted = [0] * len(reads.batches)
    order: list[list[int]] = [[] for _ in reads.batches]
    for batch in reversed(range(len(reads.batches))):
        for request in sorted(firm[batch], key=lambda request: -request.weight):
            granted[batch] += runs.link(request.nodes)
        for request in sorted(free[batch], key=lambda request: -request.weight):
            if len(request.nodes) < len(reads.batches[batch]):
                granted[batch] += runs.gather(request.nodes)
        order[batch] = runs.in_order(reads.batches[batch])
        requests = requests_of(reads, batch, order[batch])
        for request in requests:
            (free if len(requests) == 1 and not granted[batch] else firm)[request.batch].append(request)
    blocks = by_type(schedule)
    layout = by_slot(graph, schedule, schedule.order, blocks)
    _follow_rows(graph, reads, order, granted, layout.base)
    joined = np.array([node for nodes in order for node in nodes], np.int32)
    return Layout(joined, layout.base, layout.arena_rows)


def _follow_rows(
    graph: InstanceGraph, reads: Reads, order: list[list[int]], granted: list[int], base: np.ndarray
) -> None:
    """Put batches that granted nothing into the order of the consecutive rows that an operand reads."""
    place = [0] * graph.num_nodes
    outside = external_rows(graph).tolist()
    first_row = base.tolist()
    variadic = [bool(cell.variadic_count) for cell in signature_of(graph)]

    def row(value: int) -> int:
        if value < 0:
            return int(outside[value])
        node = value // reads.stride
        return int(first_row[reads.batch_of[node]][value % reads.stride]) + place[node]

    for batch, nodes in enumerate(order):
        if not granted[batch] and len(nodes) > 1 and not variadic[reads.batch_type[batch]]:
            rows_of = [list(map(row, values)) for _, values in reads.operands(batch, nodes)]
            if not any(all(b == a + 1 for a, b in pairwise(rows)) for rows in rows_of):
                for rows in rows_of:
                    if max(rows) - min(rows) == len(rows) - 1 == len(set(rows)) - 1:
                        nodes[:] = [node for _, node in sorted(zip(rows, nodes, strict=True))]
                        break
        for position, node in enumerate(nodes):
            place[node] = position
