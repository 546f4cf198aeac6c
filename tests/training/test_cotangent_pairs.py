"""Adjoints that take two cotangents of an output: no nodes that add them, the same gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.training import backward_model
from tests.training.reference import reference_gradients
from tests.training.test_backward import random_cotangents, require_equal


@I.ir_module
class Pair:
    """A state that is read by the next step and out; and a linear readout, whose cotangents are rows of a product."""

    @R.function
    def step(h: R.Tensor((4,), "float32"), x: R.Tensor((4,), "float32"), W: R.Tensor((4, 4), "float32")):
        R.func_attr({"num_input": 2})
        with R.dataflow():
            y = R.tanh(R.matmul(h, W) + x)
            R.output(y)
        return y

    @R.function
    def linear(h: R.Tensor((4,), "float32"), V: R.Tensor((4, 4), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            y = R.matmul(h, V)
            R.output(y)
        return y


RNG = np.random.default_rng(3)
WEIGHTS = {name: RNG.standard_normal((4, 4)).astype(np.float32) for name in "WV"}


def chain(model: Any, reads: list[int]) -> Any:
    """States, of which each is read out so often."""
    b = model.builder()
    state, outputs = b.zero, []
    for number, times in enumerate(reads):
        state = b.call("step", state, np.full(4, 0.1 * number, np.float32))
        outputs += [b.call("linear", state) for _ in range(times)]
    return b.finish(outputs)


def gradients(model: Any, reads: list[int]) -> tuple[Any, Any]:
    result = model([chain(model, reads)])
    cotangents = random_cotangents(result, result.graph.outputs.tolist())
    found = result.backward(cotangents)
    require_equal(found, reference_gradients(Pair, WEIGHTS, result.graph, cotangents))
    return result, found


def sums(found: Any) -> int:
    """The nodes that add cotangents."""
    graph = found.schedule.graph
    return sum("sum" in graph.type_names[type_id] for type_id in graph.node_type.tolist())


def test_two_users_need_no_sums() -> None:
    model = eb.compile(Pair, WEIGHTS, training=True)
    result, found = gradients(model, [1, 1, 1, 1])
    assert sums(found) == 0
    assert len(found.schedule) == len(result.schedule)
    # From now on the adjoint takes two; more users, fewer, and none at all.
    assert sums(gradients(model, [2, 1, 0, 3])[1]) == 2
    assert sums(gradients(model, [0, 0, 0, 1])[1]) == 0


def test_where_most_values_have_one_user_sums_are_nodes() -> None:
    model = eb.compile(Pair, WEIGHTS, training=True)
    assert sums(gradients(model, [0, 0, 1, 1])[1]) == 1
    assert sums(gradients(model, [1, 1, 1, 1])[1]) == 3


def test_the_bits_are_those_of_sums(monkeypatch: Any) -> None:
    reads = [1, 1, 1, 2, 1]
    _, two = gradients(eb.compile(Pair, WEIGHTS, training=True), reads)
    monkeypatch.setattr(backward_model, "cotangent_pairs", lambda *_: {})
    _, one = gradients(eb.compile(Pair, WEIGHTS, training=True), reads)
    assert (sums(two), sums(one)) == (1, 4)
    for name in WEIGHTS:
        np.testing.assert_array_equal(one[name], two[name])
