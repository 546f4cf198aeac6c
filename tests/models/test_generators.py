"""Generators: seeded, and of the statistics their docstrings state for the real data."""

from __future__ import annotations

import numpy as np
import pytest

from edbatch_tvm.graph import InstanceGraph, format_graph
from edbatch_tvm.models.random_dag.generator import random_dags
from tests.models.conftest import Case, case


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


def test_types_are_fair() -> None:
    _, a, b, _ = counts(case("treelstm-2type"), 300).sum(axis=0)
    assert a / (a + b) == pytest.approx(0.5, abs=0.02)


def test_two_types_leave_the_shapes_of_trees_alone(trees: Case) -> None:
    typed, plain = counts(case("treelstm-2type"), 20), counts(trees, 20)
    assert (typed[:, 1] + typed[:, 2] == plain[:, 1]).all()


def test_flat_trees_like_those_of_the_treebank() -> None:
    found = case("childsum-tree")
    graphs = found.workload.generate(600, found.signature, 0)
    internal = np.concatenate([np.diff(graph.operand_ptr)[graph.node_type == 1] // 2 for graph in graphs])
    assert internal.mean() == pytest.approx(3.08, abs=0.1)
    assert internal.min() == 2
    assert np.mean(internal == 2) == pytest.approx(0.56, abs=0.04)
    assert np.percentile(internal, 95) == pytest.approx(7, abs=1)
    assert np.mean([depth(graph) for graph in graphs]) == pytest.approx(6.4, abs=0.5)


def test_rare_words_like_those_of_wikiner() -> None:
    found = case("bilstm-tagger-char")
    sums = dict(zip(found.signature.names, counts(found, 300).sum(axis=0), strict=True))
    assert sums["spell"] / sums["tag"] == pytest.approx(0.128, abs=0.01)
    assert sums["word"] + sums["spell"] == sums["tag"] == sums["forward_layer1"]
    assert sums["char_forward_layer1"] / sums["spell"] - 2 == pytest.approx(7.5, abs=0.3)


def test_pairs_like_those_of_the_talks() -> None:
    _, source, _, target, _ = counts(case("lstm-nmt"), 1000).T
    assert source.mean() == pytest.approx(18.0, abs=1.5)
    assert target.mean() == pytest.approx(22.1, abs=2)
    assert source.std() == pytest.approx(11.2, abs=1.5)
    assert target.std() == pytest.approx(14.0, abs=2)
    assert np.percentile(source, [5, 50, 95]) == pytest.approx([5, 15, 39], abs=3)
    assert np.percentile(target, [5, 50, 95]) == pytest.approx([7, 19, 46], abs=4)
    assert np.corrcoef(source, target)[0, 1] == pytest.approx(0.94, abs=0.03)


def test_a_grid_has_a_node_for_each_pair_of_words() -> None:
    rows, columns, nodes, readouts = counts(case("grid-lstm"), 20).T
    assert (nodes == rows * columns).all()
    assert (readouts == columns).all()


def test_dags_of_200_nodes_that_read_up_to_4() -> None:
    dags = random_dags(20)
    assert {len(dag) for dag in dags} == {200}
    degrees = [0 if isinstance(node, int) else len(node[1]) for dag in dags for node in dag]
    assert np.bincount(degrees) / len(degrees) == pytest.approx([0.2] * 5, abs=0.03)
    assert all(len(set(node[1])) == len(node[1]) for dag in dags for node in dag if not isinstance(node, int))
    kinds = counts(case("random-dag"), 20)
    assert (kinds[:, :-1].sum(axis=1) == 200).all()
    assert (kinds[:, 1:-1] > 20).all()
