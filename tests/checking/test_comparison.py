"""The comparison with the reference: what is compared, and when it fails."""

from __future__ import annotations

import numpy as np
import pytest

from edbatch_tvm.checking.comparison import Comparison, Deviation, compare, final_values
from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.errors import EdbatchError
from edbatch_tvm.graph import Builder, InstanceGraph, merge
from edbatch_tvm.models.treelstm.build import JOIN, tree_graph
from tests.models.conftest import Case

Pair = tuple[InstanceGraph, list[tuple[np.ndarray, ...]]]


class Fake:
    """A result whose every value is that of the reference, but for what a test changes in `rows`."""

    def __init__(self, graph: InstanceGraph, reference: list[tuple[np.ndarray, ...]]) -> None:
        self.graph = graph
        self.rows = {
            node * graph.stride + slot: array.astype(np.float32)
            for node, outputs in enumerate(reference)
            for slot, array in enumerate(outputs)
        }

    def values(self, values: np.ndarray) -> np.ndarray:
        return np.stack([self.rows[value] for value in values.tolist()])

    def __getitem__(self, instance: int) -> list[np.ndarray]:
        begin, end = self.graph.output_ptr[instance : instance + 2]
        return [self.rows[value] for value in self.graph.outputs[begin:end].tolist()]


@pytest.fixture
def pair(trees: Case) -> Pair:
    """Two trees as a minibatch, and the reference's values."""
    builder = Builder(trees.signature)
    graph = merge([tree_graph(builder, [1, 2, JOIN]), tree_graph(builder, [3])])
    return graph, run_reference(graph, trees.workload.reference, trees.weights)


def test_final_values_are_the_states_of_the_roots(pair: Pair) -> None:
    graph, _ = pair
    # Nodes: leaf, leaf, internal, 3 readouts; leaf, readout. The memory of a root is what nothing reads.
    assert graph.stride == 2
    assert final_values(graph).tolist() == [2 * 2, 2 * 2 + 1, 6 * 2, 6 * 2 + 1]


def test_float32_rounding_passes(pair: Pair) -> None:
    graph, reference = pair
    comparison = compare(graph, Fake(graph, reference), reference)
    assert comparison.states.largest_value == max(
        np.abs(reference[node][slot]).max() for node in (2, 6) for slot in (0, 1)
    )
    assert comparison.outputs.largest_value == max(np.abs(reference[node][0]).max() for node in (3, 4, 5, 7))
    assert comparison.largest_value == min(comparison.outputs.largest_value, comparison.states.largest_value)
    assert comparison.relative_error < 1e-7
    comparison.require()


@pytest.mark.parametrize("value", [2 * 2 + 1, 3 * 2, 7 * 2])
@pytest.mark.parametrize("wrong", [1e-3, np.nan, np.inf])
def test_one_wrong_number_fails(pair: Pair, value: int, wrong: float) -> None:
    graph, reference = pair
    fake = Fake(graph, reference)
    fake.rows[value][-1] += wrong
    with pytest.raises(EdbatchError, match=r"^check failed: relative error .*; expected 1e-05 or less$"):
        compare(graph, fake, reference).require()


def test_merging_keeps_a_nan() -> None:
    fine = Deviation(1.0, 0.0)
    good, bad = Comparison(fine, fine), Comparison(fine, Deviation(1.0, float("nan")))
    assert np.isnan(good.merged(bad).relative_error)
    assert np.isnan(bad.merged(good).relative_error)


def test_small_logits_are_not_hidden_by_large_states() -> None:
    comparison = Comparison(Deviation(0.02, 1e-6), Deviation(3.0, 1e-6))
    assert comparison.relative_error == pytest.approx(5e-5)


def test_nothing_computed_fails() -> None:
    with pytest.raises(EdbatchError, match=r"^check failed: the largest value is 0.005; expected 0.01 or more$"):
        Comparison(Deviation(5e-3, 0.0), Deviation(1.0, 0.0)).require()


def test_shape_fails(pair: Pair) -> None:
    graph, reference = pair
    fake = Fake(graph, reference)
    fake.rows[3 * 2] = np.zeros(4, np.float32)
    with pytest.raises(EdbatchError, match=r"a result of shape \(4,\); expected \(5,\)"):
        compare(graph, fake, reference)
