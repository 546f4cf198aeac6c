"""Graphs for the tests of batching: random typed DAGs, and the shapes of the three workloads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from edbatch_tvm.graph import InstanceGraph, merge


class Arrays:
    """Node by node, the arrays of a one-output graph."""

    def __init__(self) -> None:
        self.types: list[int] = []
        self.pointer = [0]
        self.operands: list[int] = []

    def add(self, type_id: int, *operands: int) -> int:
        """Add a node and return its number."""
        self.types.append(type_id)
        self.operands.extend(operands)
        self.pointer.append(len(self.operands))
        return len(self.types) - 1

    def graph(self) -> InstanceGraph:
        """The graph."""
        return InstanceGraph.from_arrays(self.types, self.pointer, self.operands)


@st.composite
def typed_dags(draw: st.DrawFn, max_nodes: int = 40) -> InstanceGraph:
    """A DAG of 1 to 6 types and arity 0 to 4; a node may read one producer several times."""
    types = draw(st.integers(1, 6))
    arrays = Arrays()
    for node in range(draw(st.integers(1, max_nodes))):
        producers = st.lists(st.integers(0, node - 1), max_size=4) if node else st.just([])
        arrays.add(draw(st.integers(0, types - 1)), *draw(producers))
    return arrays.graph()


def random_dag(seed: int, nodes: int, types: int, edges: int) -> InstanceGraph:
    """A large random DAG."""
    rng = np.random.default_rng(seed)
    user = np.sort(rng.integers(1, nodes, edges))
    producer = (rng.random(edges) * user).astype(np.int64)
    return InstanceGraph.from_arrays(
        rng.integers(0, types, nodes), np.searchsorted(user, np.arange(nodes + 1)), producer
    )


LEAF, INTERNAL, READOUT = range(3)


def tree(rng: np.random.Generator) -> InstanceGraph:
    """A random binary tree; a readout at every tree node."""
    arrays = Arrays()
    roots = [arrays.add(LEAF) for _ in range(int(rng.integers(2, 40)))]
    tree_nodes = list(roots)
    while len(roots) > 1:
        at = int(rng.integers(len(roots) - 1))
        roots[at : at + 2] = [arrays.add(INTERNAL, roots[at], roots[at + 1])]
        tree_nodes.append(roots[at])
    for node in tree_nodes:
        arrays.add(READOUT, node)
    return arrays.graph()


def bilstm(length: int) -> InstanceGraph:
    """A tagged sentence: per direction two stacked LSTM cells, and a tag for each token. Types f1, f2, b1, b2, tag."""
    arrays = Arrays()
    top: list[list[int]] = []
    for direction in (0, 1):
        first: list[int] = []
        second: list[int] = []
        for step in range(length):
            first.append(arrays.add(2 * direction, *first[-1:]))
            second.append(arrays.add(2 * direction + 1, first[step], *second[-1:]))
        top.append(second)
    for token in range(length):
        arrays.add(4, top[0][token], top[1][length - 1 - token])
    return arrays.graph()


def sentence(rng: np.random.Generator) -> InstanceGraph:
    """A tagged sentence of random length."""
    return bilstm(int(rng.integers(1, 50)))


START, CHAR, WORD, JOIN, OUT = range(5)


def lattice_graph(arcs: list[list[int]]) -> InstanceGraph:
    """A lattice from the sources of each node's incoming arcs; the one from the node just before is a character arc.

    An arc is a node of type char or word; only where two or more arcs meet is there a join; every lattice node has a
    readout.
    """
    arrays = Arrays()
    state: list[int] = []
    for node, sources in enumerate(arcs):
        cells = [arrays.add(CHAR if source == node - 1 else WORD, state[source]) for source in sources]
        if not cells:
            cells = [arrays.add(START)]
        state.append(cells[0] if len(cells) == 1 else arrays.add(JOIN, *cells))
    for node in state:
        arrays.add(OUT, node)
    return arrays.graph()


def lattice(rng: np.random.Generator) -> InstanceGraph:
    """A random word lattice over characters."""
    arcs: list[list[int]] = [[]]
    for node in range(1, int(rng.integers(10, 60))):
        words = [node - span for span in (2, 3, 4) if span <= node and rng.random() < 0.25]
        arcs.append([node - 1, *words])
    return lattice_graph(arcs)


def minibatches(
    make: Callable[[np.random.Generator], InstanceGraph], seed: int, count: int, size: int = 64
) -> list[InstanceGraph]:
    """Minibatch graphs of random instances."""
    rng = np.random.default_rng(seed)
    return [merge([make(rng) for _ in range(size)]) for _ in range(count)]
