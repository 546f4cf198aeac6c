"""Models that save values for their backward pass: bytes, the values that users see, and instances of other models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.errors import PlanError
from edbatch_tvm.graph import merge
from edbatch_tvm.models import WORKLOADS, get_workload
from tests.training.test_backward import WEIGHTS, Chain

_TAGGER = {f"{side}_layer{layer}": 4 for side in ("forward", "backward") for layer in (1, 2)} | {"tag": 1}

SAVED = {
    "treelstm": {"leaf": 3, "internal": 5},
    "treelstm-2type": {"leaf": 3, "internal_a": 5, "internal_b": 5},
    "treegru": {"leaf": 3, "internal": 6},
    "mvrnn": {"internal": 2},
    "childsum-tree": {"leaf": 3, "internal": 4},
    "bilstm-tagger": _TAGGER,
    # Characters have half the width.
    "bilstm-tagger-char": {f"char_{cell}": rows / 2 for cell, rows in _TAGGER.items() if cell != "tag"} | _TAGGER,
    "lstm-nmt": {"encoder": 4, "decoder": 4},
    "lattice-lstm": {"char_arc": 4, "word_arc": 4},
    "lattice-gru": {"char_arc": 3, "word_arc": 3},
    "grid-lstm": {"grid": 8},
    "random-dag": {"dense": 1, "gated": 3, "weighted": 1, "largest": 1},
}
"""Rows of the hidden size that a node of each cell saves: its gates; cells that are not listed save nothing."""

HALVED = ("treelstm", "treelstm-2type", "treegru", "childsum-tree", "bilstm-tagger", "bilstm-tagger-char", "grid-lstm")
"""Workloads whose gates take as much memory as their outputs, or more."""


@pytest.fixture(scope="module")
def chain() -> Any:
    return eb.compile(Chain, WEIGHTS, training=True, database="none")


def compiled(name: str, memory: str) -> Any:
    workload = get_workload(name)
    return eb.compile(workload.cells(8), workload.weights(8), target="numpy", training=True, memory=memory)


def bytes_of_values(model: Any, name: str) -> int:
    """What the values of a minibatch take, saved ones included."""
    graph = model.merge(get_workload(name).generate(3, model.cells, seed=3))
    plan = model.plan(graph, model.schedule(graph)[0])
    sizes = [spec.size * np.dtype(spec.dtype).itemsize for spec in model.signature.value_specs]
    return sum(rows * size for rows, size in zip(plan.arena_rows, sizes, strict=True))


@pytest.mark.parametrize(
    "name",
    [one if one in ("treelstm", "childsum-tree") else pytest.param(one, marks=pytest.mark.slow) for one in WORKLOADS],
)
def test_bytes(name: str) -> None:
    """What nodes save is as stated; computing it again saves nothing, which halves the values of most workloads."""
    model = compiled(name, "save")
    rows = SAVED[name]
    assert set(rows) <= set(model.cells.names)
    assert model.saved_bytes == {cell: 4 * 8 * rows.get(cell, 0) for cell in model.cells.names}
    again = compiled(name, "recompute")
    assert set(again.saved_bytes.values()) == {0}
    assert again.signature == again.cells == model.cells
    if name in HALVED:
        assert bytes_of_values(model, name) >= 2 * bytes_of_values(again, name)


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


@pytest.mark.parametrize("name", ["treelstm", "lattice-lstm", "random-dag"])
def test_merging_again_gives_the_same_graph(name: str) -> None:
    """The compiled merge, which numbers values anew on its way, and NumPy."""
    model = compiled(name, "save")
    instances = get_workload(name).generate(5, model.cells, seed=2)
    first, again = model.merge(instances), model.merge(instances)
    for field in ("node_type", "operand_ptr", "operand_value", "outputs", "node_ptr", "output_ptr", "scalar_output"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    assert first.digest_of_parts == again.digest_of_parts is not None
    assert first.digest_of_parts != merge(instances).digest_of_parts
    assert [array.tolist() for array in first.uses] == [array.tolist() for array in again.uses]
    assert again.signature is model.signature
    assert again.checked


@pytest.mark.usefixtures("builders")
def test_one_instance_keeps_the_values_of_its_builder() -> None:
    """One instance is its own merge, but for what its nodes save; alone and beside another one results are equal."""
    model = compiled("treelstm", "save")
    assert any(model.saved_bytes.values())
    builder = model.builder()
    left, right = (builder.call("leaf", word=word) for word in (3, 5))
    root = builder.call("internal", *left, *right)
    logits = builder.call("readout", root[0])
    instance = builder.finish(logits)
    results = [model([instance]), model([instance, instance]), model([instance])]
    for result in (results[0], results[2]):
        assert result.graph.num_instances == len(result) == 1
        for value in (logits, root[0], left[1]):
            np.testing.assert_array_equal(result.value(value), results[0].value(value))
        np.testing.assert_array_equal(result.value(logits), results[1][1])
    cotangent = np.ones(results[0][0].shape, np.float32)
    one, other = (result.backward([cotangent]) for result in (results[0], results[2]))
    for name in one:
        assert one[name].tobytes() == other[name].tobytes()
