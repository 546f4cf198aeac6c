"""Batches of every size: the tiles of two sizes that they consist of, and activations inside of products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb

H = 24
CLASSES = 3
"""So few that vectors of half of the lanes have room for them."""

MOST = 30


@I.ir_module
class Cells:
    @R.function
    def lstm(x: R.Tensor((H,), "float32"), c: R.Tensor((H,), "float32"), W: R.Tensor((H, 4 * H), "float32")):
        R.func_attr({"num_input": 2})
        with R.dataflow():
            ifog = R.split(R.matmul(x, W), 4)
            d = R.sigmoid(ifog[1]) * c + R.tanh(ifog[3]) * R.sigmoid(ifog[0])
            h = R.sigmoid(ifog[2]) * R.tanh(d)
            R.output(h, d)
        return h, d

    @R.function
    def gates(x: R.Tensor((H,), "float32"), W: R.Tensor((H, 4 * H), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            ifog = R.split(R.matmul(x, W), 4)
            # Products of two sigmoids, of equal ones, and with one that is a result of its own.
            own = R.sigmoid(ifog[2])
            y = R.sigmoid(ifog[0]) * R.sigmoid(ifog[1])
            z = R.sigmoid(ifog[3]) * own
            R.output(y, z, own)
        return y, z, own

    @R.function
    def scores(x: R.Tensor((H,), "float32"), V: R.Tensor((H, CLASSES), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            y = R.matmul(x, V)
            z = R.nn.softmax(y)
            R.output(y, z)
        return y, z


def sigmoid(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = 1 / (1 + np.exp(-x))
    return result


AVX2 = {"kind": "llvm", "mcpu": "haswell"}


@pytest.mark.parametrize(
    ("target", "dtype"),
    [
        ("llvm", "float32"),
        pytest.param("llvm", "float64", marks=pytest.mark.slow),
        pytest.param(AVX2, "float32", marks=pytest.mark.slow),
        pytest.param(AVX2, "float64", marks=pytest.mark.slow),
    ],
)
def test_batches_of_every_size(target: Any, dtype: str) -> None:
    rng = np.random.default_rng(0)
    W = rng.normal(size=(H, 4 * H)).astype("float32").astype(dtype)
    V = rng.normal(size=(H, CLASSES)).astype("float32").astype(dtype)
    model = eb.compile(Cells, {"W": W, "V": V}, target=target, dtype=dtype)
    x, c = (rng.normal(size=(MOST, H)).astype("float32").astype(dtype) for _ in range(2))
    i, f, o, g = np.split(x.astype("float64") @ W.astype("float64"), 4, axis=1)
    d = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    y = x.astype("float64") @ V.astype("float64")
    soft = np.exp(y) / np.exp(y).sum(1, keepdims=True)
    wanted = sigmoid(o) * np.tanh(d), d, sigmoid(i) * sigmoid(f), sigmoid(g) * sigmoid(o), sigmoid(o), y, soft
    b = model.builder()
    instances = [
        b.finish([*b.call("lstm", x[n], c[n]), *b.call("gates", x[n]), *b.call("scores", x[n])]) for n in range(MOST)
    ]
    tolerance = 1e-13 if dtype == "float64" else 1e-5
    for count in range(1, MOST + 1):
        for n, found in enumerate(model(instances[:count])):
            for one, right in zip(found, wanted, strict=True):
                assert np.abs(one - right[n]).max() <= tolerance * np.abs(right).max(), (count, n)


def test_products_with_a_gate_at_the_edges() -> None:
    """Gates that are shut or open, infinities and NaN: what the product of both numbers is."""
    edge = np.array([-np.inf, -200, -89, -87, -30, 0, 30, 200, np.inf, np.nan], "float32")
    gate, value = (grid.ravel() for grid in np.meshgrid(edge, np.append(edge, [1e-30, 3e38]).astype("float32")))
    size = len(gate)

    @I.ir_module
    class Products:
        @R.function
        def products(x: R.Tensor((size,), "float32"), y: R.Tensor((size,), "float32")):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                plain = R.sigmoid(x) * y
                both = R.sigmoid(x) * R.tanh(y)
                R.output(plain, both)
            return plain, both

    model = eb.compile(Products, {})
    b = model.builder()
    plain, both = model([b.finish(list(b.call("products", gate, value)))])[0]
    with np.errstate(all="ignore"):
        wide = sigmoid(gate.astype("float64"))
        # What a float32 cannot hold is 0, and a shut gate times an infinity NaN.
        shut = np.where(gate <= -89, 0, wide)
        for found, right in ((plain, shut * value.astype("float64")), (both, shut * np.tanh(value.astype("float64")))):
            right = np.where(np.abs(right) > np.finfo("float32").max, np.sign(right) * np.inf, right)
            np.testing.assert_allclose(found, right, rtol=1e-6, atol=1e-35)
