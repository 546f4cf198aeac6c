"""Gradients of parts of weights: written where they lie, apart where that is not possible."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.training.gradient_places import InWeight, gradient_places
from relay_ext.gradients.weight_expressions import WeightExpression
from tests.training.reference import reference_gradients
from tests.training.test_backward import random_cotangents, require_equal


def part(*slices: tuple[int, ...]) -> WeightExpression:
    return WeightExpression(("W",), None, tuple(slice(*one) for one in slices))


def test_places() -> None:
    left, right, column = part((0, 4, 1), (0, 2, 1)), part((0, 4, 1), (2, 6, 1)), part((0, 4, 1), (5, 6, 1))
    shapes = {"W": (4, 6)}
    both = gradient_places({"l": left, "r": right}, shapes, ())
    assert both.parts == {"l": InWeight("W", 0, 6), "r": InWeight("W", 2, 6)}
    assert (both.sizes, both.incomplete) == ({"W": 24}, frozenset())
    assert gradient_places({"l": left}, shapes, ()).incomplete == {"W"}
    whole = WeightExpression(("W",), None)
    for others in ({"r": right, "c": column}, {"W": whole, "r": right}, {"s": part((0, 4, 2), (0, 6, 1))}):
        assert not gradient_places(others, shapes, ()).parts
    assert not gradient_places({"l": left, "r": right}, shapes, ["r"]).parts


@I.ir_module
class Parts:
    """Parts of weights as factors and as terms; overlapping ones; such that are not all of a weight."""

    @R.function
    def cell(
        x: R.Tensor((4,), "float32"),
        m: R.Tensor((4, 2), "float32"),
        W: R.Tensor((4, 6), "float32"),
        V: R.Tensor((4, 4), "float32"),
        U: R.Tensor((4, 4), "float32"),
        b: R.Tensor((6,), "float32"),
    ):
        R.func_attr({"num_input": 2})
        with R.dataflow():
            left = R.strided_slice(W, axes=[1], begin=[0], end=[2])
            right = R.strided_slice(W, axes=[1], begin=[2], end=[6])
            some = R.strided_slice(V, axes=[1], begin=[1], end=[3])
            one = R.strided_slice(U, axes=[1], begin=[0], end=[2])
            other = R.strided_slice(U, axes=[1], begin=[1], end=[3])
            two = R.tanh(R.matmul(x, left) + R.strided_slice(b, axes=[0], begin=[0], end=[2]))
            four = R.tanh(R.matmul(x, right) + R.strided_slice(b, axes=[0], begin=[2], end=[6]))
            more = R.matmul(x, one) + R.matmul(x, other)
            matrix = R.sum(m * some, axis=[0])
            y = R.concat((two + more, four, matrix), axis=0)
            R.output(y)
        return y


def test_every_way() -> None:
    rng = np.random.default_rng(1)
    shapes = {"W": (4, 6), "V": (4, 4), "U": (4, 4), "b": (6,)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    model: Any = eb.compile(Parts, weights, training=True)
    b = model.builder()
    rows = [(rng.standard_normal(4), rng.standard_normal((4, 2))) for _ in range(5)]
    instances = [b.finish(b.call("cell", *(one.astype(np.float32) for one in row))) for row in rows]
    result = model(instances)
    cotangents = random_cotangents(result, result.graph.outputs.tolist())
    require_equal(result.backward(cotangents), reference_gradients(Parts, weights, result.graph, cotangents))
