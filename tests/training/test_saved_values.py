"""Models that save values for their backward pass: bytes, the values that users see, and instances of other models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.errors import PlanError
from edbatch_tvm.models import get_workload
from tests.training.test_backward import WEIGHTS, Chain

SAVED = {
    "treelstm": {"leaf": 3, "internal": 5, "readout": 0},
    "childsum-tree": {"leaf": 3, "internal": 4, "readout": 0},
    "lattice-lstm": {"start": 0, "char_arc": 4, "word_arc": 4, "join": 0, "readout": 0},
}
"""Rows of the hidden size that a node of each cell saves: its gates."""


@pytest.fixture(scope="module")
def chain() -> Any:
    return eb.compile(Chain, WEIGHTS, training=True, database="none")


def test_bytes() -> None:
    for name, rows in SAVED.items():
        workload = get_workload(name)
        model = eb.compile(workload.cells(8), workload.weights(8), target="numpy", training=True)
        assert model.saved_bytes == {cell: 4 * 8 * count for cell, count in rows.items()}, name
        again = eb.compile(workload.cells(8), workload.weights(8), target="numpy", training=True, memory="recompute")
        assert set(again.saved_bytes.values()) == {0}
        assert again.signature == again.cells == model.cells


def test_an_unknown_way() -> None:
    with pytest.raises(PlanError, match="unknown memory 'keep'; expected one of auto, save, recompute"):
        eb.compile(Chain, WEIGHTS, training=True, memory="keep")


def test_values_as_the_builder_gave_them_out() -> None:
    """They are found in a result of the instance alone, and may have cotangents, though nodes have more outputs."""
    workload = get_workload("treelstm")
    model = eb.compile(workload.cells(8), workload.weights(8), target="numpy", training=True)
    assert model.signature.stride > model.cells.stride
    b = model.builder()
    (h1, c1), (h2, c2) = b.call("leaf", word=1), b.call("leaf", word=2)
    h, c = b.call("internal", h1, c1, h2, c2)
    graph = b.finish(h, c)
    result = model([graph])
    np.testing.assert_array_equal(result.value(h), result[0][0])
    np.testing.assert_array_equal(result.value(c), result[0][1])
    np.testing.assert_array_equal(result.values([c, h]), [result[0][1], result[0][0]])
    ones = np.ones(8, np.float32)
    by_value = result.backward({c: ones}, retain=True)
    by_output = result.backward([[None, ones]])
    for name in by_value:
        np.testing.assert_array_equal(by_value[name], by_output[name])


def test_instances_of_another_model(chain: Any) -> None:
    """Instances that were built for inference, and a graph with external rows."""
    plain = eb.compile(Chain, WEIGHTS, database="none")
    b = plain.builder()
    start = np.linspace(-1, 1, 4, dtype=np.float32)
    instance = b.finish(b.call("loss", b.call("step", start, word=3), label=1))
    result = chain([instance, instance])
    np.testing.assert_allclose(result[0], plain([instance])[0], rtol=1e-6)
    gradients = result.backward()
    arena = next(place for place, rows in enumerate(result.graph.external_data) if len(rows))
    assert gradients.external[arena].shape == (2, 4)
    assert np.abs(gradients.external[arena]).min() > 0


def test_schedules_and_plans_are_not_taken_for_those_of_the_cells_as_written(chain: Any) -> None:
    """A cache that mixed them up would read rows of other values."""
    plain = eb.compile(Chain, WEIGHTS, database="none", policy="depth")
    chain.policy = "depth"
    b = plain.builder()
    instances = [b.finish(b.call("loss", b.call("step", b.zero, word=word), label=1)) for word in range(3)]
    for _ in range(2):
        found, expected = chain(instances), plain(instances)
        np.testing.assert_allclose([found[i] for i in range(3)], [expected[i] for i in range(3)], rtol=1e-6)
        assert found.graph.digest_of_parts != expected.graph.digest_of_parts or chain.cells == chain.signature
