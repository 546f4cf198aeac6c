"""Backward passes of whole minibatches against PyTorch's autograd in float64."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.batching import check_schedule
from edbatch_tvm.errors import CellError, GraphError, TargetError, WeightError
from edbatch_tvm.graph import validate
from edbatch_tvm.memory import PLANS
from edbatch_tvm.models import WORKLOADS, get_workload
from relay_ext.signature import weights_of
from tests.random_cells import cells_for
from tests.runtime.test_differential import random_signature
from tests.strategies import graphs
from tests.training.reference import reference_gradients

QUICK = ("treelstm", "childsum-tree", "mvrnn")


def random_cotangents(result: Any, values: Any, seed: int = 0) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        int(value): rng.standard_normal(result.value(value).shape).astype(np.float32) for value in sorted(set(values))
    }


def require_equal(
    gradients: Any, expected: tuple[dict[str, np.ndarray], list[np.ndarray]], tolerance: float = 1e-5
) -> None:
    weights, external = expected
    assert set(gradients) == set(weights)
    pairs = [(name, gradients[name], right) for name, right in weights.items()]
    pairs += [(f"external {place}", gradients.external[place], right) for place, right in enumerate(external)]
    for name, found, right in pairs:
        assert found.shape == right.shape, name
        scale = max(np.abs(right).max(initial=0), 1e-3)
        assert np.abs(found - right).max(initial=0) / scale <= tolerance, name


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in WORKLOADS]
)
def test_workload(name: str) -> None:
    """All outputs of two instances have random cotangents."""
    workload = get_workload(name)
    cells, weights = workload.cells(8), workload.weights(8)
    model = eb.compile(cells, weights, training=True, database="none")
    result = model(workload.generate(2, model.cells, seed=3))
    cotangents = random_cotangents(result, result.graph.outputs.tolist())
    gradients = result.backward(cotangents)
    require_equal(gradients, reference_gradients(cells, weights, result.graph, cotangents))
    check_schedule(gradients.schedule.graph, gradients.schedule)
    assert gradients.schedule.graph is not None
    validate(gradients.schedule.graph)


@lru_cache(maxsize=8)
def random_model(seed: int) -> Any:
    """Random cells with a backward pass; all but expressions of weights alone are computed in float64."""
    signature = random_signature(seed, shapes=((3,), (2,), (2, 2)))
    cells = cells_for(signature, seed, general=True)
    rng = np.random.default_rng(seed)
    weights = {
        name: (rng.uniform(-1, 1, spec.shape) / np.sqrt(spec.shape[0])).astype(np.float32)
        for name, spec in weights_of(cells).items()
    }
    memory = "recompute" if seed % 3 == 2 else "save"
    return eb.compile(cells, weights, target="numpy", training=True, memory=memory), cells, weights


def check_random_graph(data: st.DataObject, seeds: int) -> None:
    """Any nodes have cotangents: unused outputs, shared and repeated operands, external rows, no rows."""
    model, cells, weights = random_model(data.draw(st.integers(0, seeds - 1)))
    some = graphs(model.cells, min_nodes=1, max_nodes=10)
    instances = data.draw(st.lists(some, min_size=1, max_size=3))
    result = model(instances)
    everything = [
        node * result.graph.stride + slot
        for node, type_id in enumerate(result.graph.node_type.tolist())
        for slot in range(len(model.cells[type_id].outputs))
    ]
    chosen = data.draw(st.lists(st.sampled_from(everything), min_size=1, max_size=6))
    cotangents = random_cotangents(result, chosen, data.draw(st.integers(0, 99)))
    gradients = result.backward(cotangents)
    require_equal(gradients, reference_gradients(cells, weights, result.graph, cotangents), 1e-5)
    check_schedule(gradients.schedule.graph, gradients.schedule)


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_random_graphs(data: st.DataObject) -> None:
    check_random_graph(data, 3)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_many_random_graphs(data: st.DataObject) -> None:
    check_random_graph(data, 40)


# One small model ------------------------------------------------------------------------------------------------


@I.ir_module
class Chain:
    """A step of a recurrent network, and a loss of its state."""

    @R.function
    def step(h: R.Tensor((4,), "float32"), word: R.Tensor((), "int32"), E: R.Tensor((7, 4), "float32"),
             W: R.Tensor((4, 4), "float32"), b: R.Tensor((4,), "float32")):  # fmt: skip
        R.func_attr({"num_input": 2})
        with R.dataflow():
            y = R.tanh(R.matmul(h, W) + R.take(E, word, axis=0) + b)
            R.output(y)
        return y

    @R.function
    def loss(h: R.Tensor((4,), "float32"), label: R.Tensor((), "int32")):
        R.func_attr({"num_input": 2})
        with R.dataflow():
            y = R.negative(R.take(R.nn.log_softmax(h, axis=-1), label, axis=0))
            R.output(y)
        return y


RNG = np.random.default_rng(1)
WEIGHTS = {
    "E": RNG.standard_normal((7, 4)).astype(np.float32),
    "W": RNG.standard_normal((4, 4)).astype(np.float32),
    "b": RNG.standard_normal(4).astype(np.float32),
}


@pytest.fixture(scope="module")
def chain() -> Any:
    return eb.compile(Chain, WEIGHTS, training=True)


def sentences(model: Any, count: int = 3) -> list[Any]:
    b = model.builder()
    found = []
    for number in range(count):
        h: Any = np.full(4, 0.1 * number, np.float32)  # an external row
        for word in range(number + 2):
            h = b.call("step", h, word=word % 7)
        found.append(b.finish(b.call("loss", h, label=number % 4)))
    return found


def test_losses_need_no_cotangents(chain: Any) -> None:
    result = chain(sentences(chain))
    gradients = result.backward()
    ones = {int(value): np.ones((), np.float32) for value in result.graph.outputs}
    require_equal(gradients, reference_gradients(Chain, WEIGHTS, result.graph, ones))
    assert len(gradients.schedule) == len(result.schedule)  # every value is read once: nothing is added up
    assert gradients.report.seconds["total"] > 0


def test_cotangents_in_the_form_of_the_result(chain: Any) -> None:
    result = chain(sentences(chain))
    weighted = result.backward([np.float32(2.0), None, np.float32(-1.0)], retain=True)
    values = result.graph.outputs.tolist()
    same = {values[0]: np.float32(2.0), values[2]: np.float32(-1.0)}
    require_equal(weighted, reference_gradients(Chain, WEIGHTS, result.graph, same))


def test_the_gradient_of_a_table_as_rows(chain: Any) -> None:
    gradients = chain(sentences(chain)).backward()
    index, rows = gradients.rows("E")
    assert index.tolist() == [0, 1, 2, 3]
    dense = np.zeros((7, 4), np.float32)
    dense[index] = rows
    np.testing.assert_array_equal(dense, gradients["E"])
    with pytest.raises(WeightError, match="weight 'W'; expected a table of which rows are read"):
        gradients.rows("W")
    with pytest.raises(WeightError, match="no weight 'X'; expected one of E, W, b"):
        gradients["X"]


def test_graphs_of_one_structure_keep_their_own_words_and_rows(chain: Any) -> None:
    """The second minibatch runs by the plan that was made for the first."""
    for word, row in ((1, 0.5), (5, -0.25)):
        b = chain.builder()
        state = b.call("step", np.full(4, row, np.float32), word=word)
        result = chain([b.finish(b.call("loss", state, label=word % 4))])
        ones = {int(value): np.ones((), np.float32) for value in result.graph.outputs}
        expected = reference_gradients(Chain, WEIGHTS, result.graph, ones)
        require_equal(result.backward(), expected)


def test_policies_and_plans_give_the_same_bits(chain: Any) -> None:
    instances = sentences(chain, 6)
    found = []
    for policy in ("depth", "agenda", "lookahead"):
        for plan in PLANS:
            chain.policy, chain.plan_name = policy, plan
            gradients = chain(instances).backward()
            found.append({name: gradients[name].tobytes() for name in gradients})
    chain.policy, chain.plan_name = "auto", "batch"
    assert all(one == found[0] for one in found)


def test_no_gradient_passes_a_detached_node(chain: Any) -> None:
    """As where its value is an external row."""
    b = chain.builder()
    state = b.call("step", b.call("step", b.zero, word=1), word=2)
    both = b.finish(b.call("loss", state, label=3))
    result = chain([both])
    result.detached = np.arange(result.graph.num_nodes) == 0
    b = chain.builder()
    state = b.call("step", result.value(0), word=2)
    alone = chain([b.finish(b.call("loss", state, label=3))]).backward()
    gradients = result.backward()
    for name in gradients:
        np.testing.assert_allclose(gradients[name], alone[name], rtol=1e-6)
    assert gradients.schedule.order.size == 2
    # A cotangent that is given for it goes nowhere, either.
    result = chain([both])
    result.detached = np.arange(result.graph.num_nodes) == 0
    first, loss = result.graph.nodes_of(chain.cells.type_id("step"))[0], int(result.graph.outputs[0])
    values = {int(first) * result.graph.stride: None, loss: None}
    cotangents = {value: np.ones_like(result.value(value)) for value in values}
    again = result.backward(cotangents)
    for name in again:
        np.testing.assert_allclose(again[name], alone[name], rtol=1e-6)
    result = chain([both])
    result.detached = np.arange(result.graph.num_nodes) == 0
    nothing = result.backward({int(first) * result.graph.stride: np.ones_like(result.value(0))})
    assert not any(nothing[name].any() for name in nothing)


def test_a_loop_of_steps_is_that_of_pytorch() -> None:
    """Twenty steps of gradient descent in float32 follow those of the reference."""
    weights = {name: array.copy() for name, array in WEIGHTS.items()}
    exact = {name: array.astype(np.float64) for name, array in WEIGHTS.items()}
    model = eb.compile(Chain, weights, training=True)
    instances = sentences(model)
    losses = []
    for _ in range(20):
        result = model(instances)
        losses.append(sum(float(loss) for loss in result))
        ones = {int(value): np.ones((), np.float32) for value in result.graph.outputs}
        expected, _ = reference_gradients(Chain, exact, result.graph, ones)
        gradients = result.backward()
        for name in weights:
            weights[name] -= np.float32(0.2) * gradients[name]
            exact[name] -= 0.2 * expected[name]
        model.refresh(weights)
    assert losses[-1] < 0.5 * losses[0]
    for name in weights:
        np.testing.assert_allclose(weights[name], exact[name], atol=1e-5)


def test_errors(chain: Any) -> None:
    result = chain(sentences(chain))
    with pytest.raises(GraphError, match=r"cotangents of 1 instances; expected 3"):
        result.backward([1.0])
    with pytest.raises(GraphError, match=r"output 0 of instance 1 is float64\[2\]; expected float32\[\]"):
        result.backward([1.0, np.zeros(2), 1.0])
    result.backward()
    with pytest.raises(GraphError, match=r"a second backward pass.*retain=True"):
        result.backward()
    stale = chain(sentences(chain))
    chain.refresh(WEIGHTS)
    with pytest.raises(GraphError, match=r"other weights than the result"):
        stale.backward()
    b = chain.builder()
    state = chain([b.finish(b.call("step", b.zero, word=1))])
    with pytest.raises(GraphError, match=r"output of shape \(4,\) without a cotangent.*add a loss"):
        state.backward()
    with pytest.raises(TargetError, match="at granularity 'group'; expected granularity 'cell' or 'op'"):
        eb.compile(Chain, WEIGHTS, granularity="group", training=True)


@pytest.mark.parametrize("memory", ["save", "recompute"])
def test_operators_train(chain: Any, memory: str) -> None:
    """At granularity ``op`` instances of cells run as graphs of their operators; weights get the same gradients."""
    model: Any = eb.compile(Chain, WEIGHTS, granularity="op", training=True, memory=memory)
    assert model.cells == chain.cells
    assert len(model.nodes) > len(model.cells)
    result, expected = model(sentences(model)), chain(sentences(chain))
    np.testing.assert_allclose(list(result), list(expected), rtol=1e-6)
    assert len(result.schedule) > len(expected.schedule)
    cotangents = [np.float32(2.0), None, np.float32(-1.0)]
    by_ops, by_cells = result.backward(cotangents), expected.backward(cotangents)
    for name in WEIGHTS:
        np.testing.assert_allclose(by_ops[name], by_cells[name], rtol=1e-5, atol=1e-6)
    model.refresh({name: 2 * array for name, array in WEIGHTS.items()})
    assert not np.allclose(list(model(sentences(model))), list(expected))


@pytest.mark.parametrize(
    "name", ["childsum-tree", *(pytest.param(name, marks=pytest.mark.slow) for name in ("treelstm", "lattice-gru"))]
)
def test_operators_of_workloads_train(name: str) -> None:
    workload = get_workload(name)
    weights = workload.weights(8)
    found = []
    for granularity in ("cell", "op"):
        model = eb.compile(workload.cells(8), weights, target="numpy", granularity=granularity, training=True)
        result: Any = model(workload.generate(2, model.cells, seed=3))
        rng = np.random.default_rng(0)
        cotangents = [[rng.standard_normal(out.shape).astype(np.float32) for out in outs] for outs in result]
        found.append(result.backward(cotangents))
    for weight in weights:
        scale = np.abs(found[0][weight]).max()
        np.testing.assert_allclose(found[1][weight], found[0][weight], atol=1e-6 * scale, rtol=0)


def test_a_cell_without_gradient_is_named() -> None:
    @I.ir_module
    class Products:
        @R.function
        def products(h: R.Tensor((4,), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.cumprod(h, axis=0)
                R.output(y)
            return y

    with pytest.raises(CellError, match="the gradient of operator 'cumprod' in cell 'products'"):
        eb.compile(Products, {}, training=True)
