"""Generators: seeded, and of the statistics their docstrings state for the real data."""

from __future__ import annotations

import numpy as np
import pytest

from edbatch_tvm.graph import InstanceGraph, format_graph
from tests.models.conftest import Case


def counts(case: Case, number: int) -> np.ndarray:
    """Nodes of each type of `number` generated instances: int[number, types]."""
    return np.stack([graph.type_count for graph in case.workload.generate(number, case.signature, 0)])


def depth(graph: InstanceGraph) -> int:
    """Nodes on the longest path of a graph of states and readouts, without the readout."""
    longest = np.zeros(graph.num_nodes, int)
    for node in range(graph.num_nodes):
        producers = graph.operand_node[graph.operand_ptr[node] : graph.operand_ptr[node + 1]]
        longest[node] = 1 + longest[producers].max(initial=0)
    return int(longest.max()) - 1


def test_same_seed_same_instances(every: Case) -> None:
    generate, signature = every.workload.generate, every.signature
    first, again, other = (list(map(format_graph, generate(3, signature, seed))) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_none_at_all(every: Case) -> None:
    assert every.workload.generate(0, every.signature, 0) == []


def test_trees_like_the_treebank(trees: Case) -> None:
    graphs = trees.workload.generate(600, trees.signature, 0)
    leaves = np.array([graph.type_count[0] for graph in graphs])
    assert leaves.mean() == pytest.approx(19.1, abs=1.0)
    assert leaves.std() == pytest.approx(9.3, abs=1.0)
    assert leaves.min() >= 2
    assert leaves.max() <= 52
    assert np.mean([depth(graph) for graph in graphs]) == pytest.approx(10.8, abs=0.6)


def test_sentences_like_wikiner(sentences: Case) -> None:
    tokens = counts(sentences, 1000)[:, 0]
    assert tokens.mean() == pytest.approx(24.8, abs=1.5)
    assert tokens.std() == pytest.approx(11.7, abs=1.5)
    assert np.percentile(tokens, [5, 50, 95]) == pytest.approx([10, 23, 46], abs=4)


def test_lattices_like_the_real_ones(lattices: Case) -> None:
    start, _, words, joins, nodes = counts(lattices, 1000).T
    assert (start == 1).all()
    assert nodes.mean() == pytest.approx(44.1, abs=3)
    assert nodes.std() == pytest.approx(27.7, abs=3)
    assert nodes.max() <= 211
    assert words.sum() / nodes.sum() == pytest.approx(0.53, abs=0.03)
    assert joins.sum() / nodes.sum() == pytest.approx(0.47, abs=0.03)
