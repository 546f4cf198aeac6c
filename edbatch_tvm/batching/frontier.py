"""The frontier of a partly executed graph: the plain Python reference of the native scheduling loop."""

from __future__ import annotations

import copy
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from edbatch_tvm.batching.bounds import depths, reference_heights
from edbatch_tvm.cached_property import cached_property

if TYPE_CHECKING:
    from edbatch_tvm.graph import InstanceGraph


class Frontier:
    """Ready nodes by type.

    Parameters
    ----------
    graph : InstanceGraph
    typewise : bool
        Whether to keep typewise frontiers too, at a cost of O(nodes * types).

    Attributes
    ----------
    size : list of int
        Number of ready nodes of each type.
    typewise_size : list of int
        Number of unexecuted nodes of each type that have no unexecuted ancestor of their own type.
    """

    def __init__(self, graph: InstanceGraph, typewise: bool = False) -> None:
        self.graph = graph
        self.num_types = graph.num_types
        self._types: list[int] = graph.node_type.tolist()
        self._users: list[list[int]] = [[] for _ in range(graph.num_nodes)]
        self._waits = [0] * graph.num_nodes
        pointer, producer = graph.operand_ptr.tolist(), graph.operand_node.tolist()
        for node in range(graph.num_nodes):
            for p in producer[pointer[node] : pointer[node + 1]]:
                if p >= 0:
                    self._users[p].append(node)
                    self._waits[node] += 1
        self.ready: list[list[int]] = [[] for _ in range(self.num_types)]
        self.size = [0] * self.num_types
        self.remaining = graph.num_nodes
        for node, waits in enumerate(self._waits):
            if not waits:
                self._push(node)
        self._typewise = typewise
        self.typewise_size = [0] * self.num_types
        if typewise:
            self._init_typewise()

    def execute(self, type_id: int) -> list[int]:
        """Run all ready nodes of a type and return them, ascending."""
        batch = sorted(self.ready[type_id])
        self.ready[type_id] = []
        self.size[type_id] = 0
        self.remaining -= len(batch)
        for node in batch:
            for user in self._users[node]:
                self._waits[user] -= 1
                if not self._waits[user]:
                    self._push(user)
        if self._typewise:
            self.typewise_size[type_id] -= len(batch)
            for node in batch:
                self._unblock(node, type_id)
        return batch

    def copy(self) -> Frontier:
        """The same state, to go on from separately. Not for one with typewise frontiers."""
        other = copy.copy(self)
        other.ready = [list(nodes) for nodes in self.ready]
        other.size = list(self.size)
        other._waits = list(self._waits)
        return other

    @cached_property
    def heights(self) -> np.ndarray:
        """Typewise heights, computed when first asked for."""
        return reference_heights(self.graph)

    @cached_property
    def average_depths(self) -> list[Fraction]:
        """Average depth of the nodes of each type, computed when first asked for."""
        total = [0] * self.num_types
        count = [0] * self.num_types
        for depth, type_id in zip(depths(self.graph), self._types, strict=True):
            total[type_id] += depth
            count[type_id] += 1
        return [Fraction(s, max(k, 1)) for s, k in zip(total, count, strict=True)]

    def tight(self) -> list[int]:
        """1 for each type whose ready nodes are all those of greatest height of the type: running it lowers the bound.

        The bound of what remains is, summed over the types t, the greatest height_t of a ready node. Running the ready
        nodes of type t leaves every other term alone, and lowers its own by one exactly if no ready node of another
        type is as high.
        """
        reach = self._reach()
        own = reach.diagonal().copy()
        np.fill_diagonal(reach, 0)
        return [int(bit) for bit in own > reach.max(axis=0, initial=0)]

    def remaining_heights(self) -> np.ndarray:
        """Lower bound on the batches of each type that did not run yet; int64[types]."""
        heights: np.ndarray = self._reach().max(axis=0, initial=0)
        return heights

    def _reach(self) -> np.ndarray:
        """Entry [u, t] is the greatest height_t of a ready node of type u."""
        reach = np.zeros((self.num_types, self.num_types), np.int64)
        for t, nodes in enumerate(self.ready):
            if nodes:
                reach[t] = self.heights[nodes].max(axis=0)
        return reach

    def _push(self, node: int) -> None:
        type_id = self._types[node]
        self.ready[type_id].append(node)
        self.size[type_id] += 1

    def _init_typewise(self) -> None:
        # _blocked[v][t] = uses by v of a node that is, or has before it, an unexecuted node of type t.
        self._blocked = [[0] * self.num_types for _ in self._types]
        for node, type_id in enumerate(self._types):
            blocked = self._blocked[node]
            if not blocked[type_id]:
                self.typewise_size[type_id] += 1
            closed = [t for t in range(self.num_types) if blocked[t] or t == type_id]
            for user in self._users[node]:
                for t in closed:
                    self._blocked[user][t] += 1

    def _unblock(self, node: int, type_id: int) -> None:
        stack = [node]
        while stack:
            for user in self._users[stack.pop()]:
                self._blocked[user][type_id] -= 1
                if not self._blocked[user][type_id]:
                    if self._types[user] == type_id:
                        self.typewise_size[type_id] += 1
                    else:
                        stack.append(user)
