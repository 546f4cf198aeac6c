"""The plan ``pq``: a PQ tree over all nodes of the minibatch, for graphs that repeat.

The blocks of every slot lie in the same order (:func:`edbatch_tvm.memory.layout.by_slot`), so one order of all nodes,
in which the nodes of a batch are consecutive, is a layout. An operand is contiguous if

* its *set*, the nodes it reads, is consecutive: what a PQ tree is about; and
* it is *aligned*: the set's order is that of the batch's nodes that read it.

1. Sets are reduced from the largest to the smallest; one that does not fit is given up.
2. From the last batch to the first, the orders of a batch are intersected with those of the sets it reads, the largest
   set first; a set with which no order is left is given up. One order that is left is fixed, in the batch and in its
   sets. A batch with a single set, whose order does not matter, is left for last: it follows the order of its set.
3. What is fixed is fixed up to a reversal. Which of the fixed sequences to reverse follows from one another: a
   union-find with parity finds out, again from the largest set to the smallest.

What is given up early may leave room for much that is small, so this is no optimum. Two rankings are tried, one by size
alone and one with the sets that lie in one batch first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.memory.batch_reads import Reads
from edbatch_tvm.memory.layout import Layout, by_slot, row_bytes
from edbatch_tvm.memory.parity_union_find import ParityUnionFind
from edbatch_tvm.memory.pq_node import LEAF, Node, turn_round
from edbatch_tvm.memory.pq_tree import PQTree


@dataclass(eq=False)
class SetRead:
    """Nodes that operands of one batch read, in the order of the batch's nodes in the schedule."""

    batch: int
    size: int
    nodes: list[int]
    in_one_batch: bool


def pq_layouts(graph: InstanceGraph, schedule: Schedule) -> list[Layout]:
    """The layouts to choose from; none if there is nothing to gain."""
    reads = Reads(graph, schedule)
    sets = _sets(reads)
    if not sets:
        return []
    by_size = sorted(sets, key=lambda one: -one.size)
    first = _PqPlanner(graph, schedule, reads, sorted(by_size, key=lambda one: not one.in_one_batch))
    layouts = [first.layout()]
    if first.given_up:
        layouts.append(_PqPlanner(graph, schedule, reads, by_size).layout())
    return layouts


def _sets(reads: Reads) -> list[SetRead]:
    """What operands read that could be contiguous: two or more different nodes, one slot of each."""
    found: list[SetRead] = []
    for batch, nodes in enumerate(reads.batches):
        here: dict[tuple[int, ...], SetRead] = {}
        for operand, values in reads.operands(batch, nodes):
            sources = [value // reads.stride for value in values]
            slots = {value % reads.stride for value in values}
            # A variadic operand of several rows per node is left to chance: its set has more members than the batch.
            if len(values) < 2 or len(values) != len(nodes) or min(values) < 0 or len(slots) > 1:
                continue
            if len(set(sources)) == len(sources):
                one = len({reads.batch_of[node] for node in sources}) == 1
                known = here.setdefault(tuple(sources), SetRead(batch, 0, sources, one))
                known.size += len(values) * row_bytes(operand.spec)
        found.extend(here.values())
    return found


class _PqPlanner:
    def __init__(self, graph: InstanceGraph, schedule: Schedule, reads: Reads, ranking: list[SetRead]) -> None:
        self.graph, self.schedule, self.reads = graph, schedule, reads
        self.tree = PQTree(graph.num_nodes)
        for nodes in reads.batches:
            self.tree.reduce(nodes)
        self.kept: list[list[SetRead]] = [[] for _ in reads.batches]
        for one in ranking:
            if self.tree.reduce(one.nodes):
                self.kept[one.batch].append(one)
        self.given_up = sum(map(len, self.kept)) < len(ranking)
        self.ranking = ranking
        self.needed, self.following = self._dependence()

    def layout(self) -> Layout:
        """The layout found."""
        fixed: dict[SetRead, tuple[list[int], list[int]]] = {}
        # First the batches whose order matters to later ones.
        for batch in sorted(range(len(self.kept)), key=lambda batch: (not self.needed[batch], -batch)):
            if not self.following[batch]:
                fixed.update(self._align(batch, self.kept[batch]))
        self._reverse([fixed[one] for one in self.ranking if one in fixed])
        place = [0] * self.graph.num_nodes
        for position, node in enumerate(self.tree.frontier()):
            place[node] = position
        for batch, nodes in enumerate(self.reads.batches):
            if self.following[batch] and self.kept[batch]:
                (one,) = self.kept[batch]
                seats = sorted(place[node] for node in nodes)
                readers = sorted(zip((place[source] for source in one.nodes), nodes, strict=True))
                for (_, node), seat in zip(readers, seats, strict=True):
                    place[node] = seat
        position_of = np.array(place)
        batch_of = np.array(self.reads.batch_of)
        order = np.lexsort((position_of, batch_of)).astype(np.int32)
        blocks = np.argsort(position_of[order[self.schedule.batch_ptr[:-1]]])
        return by_slot(self.graph, self.schedule, order, blocks)

    def _dependence(self) -> tuple[list[bool], list[bool]]:
        """For each batch whether a later one depends on its order, and, if not, whether it may follow its one set."""
        needed = [False] * len(self.kept)
        found = [False] * len(self.kept)
        for batch in reversed(range(len(self.kept))):
            found[batch] = len(self.kept[batch]) <= 1 and not needed[batch]
            for one in self.kept[batch]:
                for source, count in Counter(map(self.reads.batch_of.__getitem__, one.nodes)).items():
                    if not found[batch] or count < len(self.reads.batches[source]):
                        needed[source] = True
        return needed, found

    def _align(self, batch: int, sets: list[SetRead]) -> dict[SetRead, tuple[list[int], list[int]]]:
        """Fix the order of a batch and of the sets it reads; for each set that fits: both sequences."""
        nodes = self.reads.batches[batch]
        if len(nodes) < 2 or not sets:
            return {}
        orders = self._orders(nodes)
        kept = []
        for one in sorted(sets, key=lambda one: -one.size):
            both = orders.copy()
            if all(both.reduce(constraint) for constraint in self._constraints(one.nodes)):
                orders = both
                kept.append(one)
        if len(kept) == 1 and not self.needed[batch]:
            self.kept[batch], self.following[batch] = kept, True
            return {}
        order = orders.frontier()
        self._fix([nodes[i] for i in order])
        fixed = {}
        for one in kept:
            sequence = [one.nodes[i] for i in order]
            if self._fix(sequence):
                fixed[one] = [nodes[i] for i in order], sequence
        return fixed

    def _orders(self, nodes: list[int]) -> PQTree:
        orders = PQTree(len(nodes))
        for constraint in self._constraints(nodes):
            orders.reduce(constraint)
        return orders

    def _constraints(self, nodes: list[int]) -> list[list[int]]:
        """What the tree demands of the order of `nodes`, as positions among them."""
        position = {node: i for i, node in enumerate(nodes)}
        return [[position[node] for node in constraint] for constraint in self.tree.restricted(nodes)]

    def _fix(self, sequence: list[int]) -> bool:
        """Leave only this order of `sequence`, and its reverse."""
        return all(self.tree.reduce(pair) for pair in pairwise(sequence))

    def _reverse(self, pairs: list[tuple[list[int], list[int]]]) -> None:
        """Turn nodes of the tree round so that both sequences of a pair, which are fixed, run the same way."""
        parent: dict[Node, Node] = {}
        depth: dict[Node, int] = {self.tree.root: 0}
        place: dict[Node, int] = {}
        leaf_of: dict[int, Node] = {}
        for node in self.tree.nodes():
            if node.kind == LEAF:
                leaf_of[node.leaf] = node
                continue
            for position, child in enumerate(node.child_list()):
                parent[child], depth[child], place[child] = node, depth[node] + 1, position

        def direction(sequence: list[int]) -> tuple[Node, bool]:
            """The node that the first two are in different children of, and whether they run backwards there."""
            one, two = leaf_of[sequence[0]], leaf_of[sequence[1]]
            while parent[one] is not parent[two]:
                if depth[one] >= depth[two]:
                    one = parent[one]
                else:
                    two = parent[two]
            return parent[one], place[one] > place[two]

        parity: ParityUnionFind[Node] = ParityUnionFind()
        for one, two in pairs:
            (node, backwards), (other, other_backwards) = direction(one), direction(two)
            parity.join(node, other, backwards != other_backwards)
        for node in {node for pair in pairs for node in (direction(pair[0])[0], direction(pair[1])[0])}:
            if parity.value(node):
                turn_round(node)
