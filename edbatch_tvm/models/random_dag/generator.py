"""Random typed DAGs of 200 nodes.

A node reads 0 to 4 earlier nodes, each number equally likely, any of them equally likely; one that reads none is an
input, any other takes one of the inner cells by an even draw. Nothing of it is measured: no data looks like this.
"""

from __future__ import annotations

import numpy as np

from edbatch_tvm.models.random_dag.build import INNER, Node
from edbatch_tvm.models.vocabulary import VOCABULARY

NODES, IN_DEGREE = 200, 4
"""Nodes of a DAG, readouts apart; the most operands of a node."""


def random_dags(count: int, seed: int = 0) -> list[list[Node]]:
    """`count` random DAGs."""
    rng = np.random.default_rng(seed)
    return [random_dag(NODES, rng) for _ in range(count)]


def random_dag(size: int, rng: np.random.Generator) -> list[Node]:
    """A random DAG of `size` nodes."""
    words = rng.integers(VOCABULARY, size=size).tolist()
    cells = rng.integers(len(INNER), size=size).tolist()
    degrees = np.minimum(rng.integers(IN_DEGREE + 1, size=size), np.arange(size)).tolist()
    return [
        (INNER[cells[node]], tuple(rng.choice(node, degrees[node], replace=False).tolist()))
        if degrees[node]
        else words[node]
        for node in range(size)
    ]
