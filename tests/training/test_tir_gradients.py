"""Cells that call TIR functions train where these have registered gradients; else one error says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

import edbatch_tvm as eb
from edbatch_tvm.errors import CellError
from relay_ext.gradients import tir_gradients

N = 6


@I.ir_module
class Cells:
    """One function is private, the others are not; two results, a weight and an integer among the arguments."""

    @T.prim_func(s_tir=True)
    def turned(
        x: T.Buffer((T.int64(6),), "float32"),
        w: T.Buffer((T.int64(6),), "float32"),
        times: T.Buffer((), "int32"),
        y: T.Buffer((T.int64(6),), "float32"),
        z: T.Buffer((T.int64(6),), "float32"),
    ):
        for i in range(T.int64(6)):
            with T.sblock("y"):
                j = T.axis.spatial(T.int64(6), i)
                y[j] = x[j] * w[j] * T.Cast("float32", times[()])
        for i in range(T.int64(6)):
            with T.sblock("z"):
                j = T.axis.spatial(T.int64(6), i)
                z[j] = T.exp(x[j])

    @T.prim_func(s_tir=True, private=True)
    def product(
        x: T.Buffer((T.int64(6),), "float32"),
        y: T.Buffer((T.int64(6),), "float32"),
        z: T.Buffer((T.int64(6),), "float32"),
    ):
        for i in range(T.int64(6)):
            with T.sblock("z"):
                j = T.axis.spatial(T.int64(6), i)
                z[j] = x[j] * y[j]

    @R.function
    def step(
        h: R.Tensor((6,), "float32"),
        times: R.Tensor((), "int32"),
        w: R.Tensor((6,), "float32"),
        W: R.Tensor((6, 6), "float32"),
    ):
        R.func_attr({"num_input": 2})
        cls = Cells
        with R.dataflow():
            a = R.matmul(h, W)
            both = R.call_tir(cls.turned, (a, w, times), out_ty=[R.Tensor((6,), "float32"), R.Tensor((6,), "float32")])
            y = R.tanh(both[0]) + h
            R.output(y)
        return y


RNG = np.random.default_rng(0)
WEIGHTS = {
    "w": RNG.standard_normal(N).astype(np.float32),
    "W": RNG.standard_normal((N, N)).astype(np.float32),
}
START = np.linspace(-1, 1, N, dtype=np.float32)


def of_turned(x: Any, w: Any, times: Any, results: Any, d: Any) -> list[Any]:
    """Its own result, a call of a function of the module, and operators."""
    count = R.astype(times, "float32")
    of_y = R.call_tir(Cells.get_global_var("product"), (d[0], w), x.ty)
    return [count * of_y + d[1] * results[1], d[0] * x * count, None]


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tir_gradients, "_REGISTERED", {})


@pytest.mark.parametrize("target", ["numpy", "llvm"])
def test_a_registered_gradient(target: str) -> None:
    eb.register_gradient("turned", of_turned)
    model: Any = eb.compile(Cells, WEIGHTS, target=target, training=True)
    b = model.builder()
    h: Any = START
    for times in (1, 2, 3):
        h = b.call("step", h, times=times)
    gradients = model([b.finish(h)]).backward([np.ones(N, np.float32)])
    w, W = (torch.tensor(WEIGHTS[name]).double().requires_grad_() for name in ("w", "W"))
    state = torch.tensor(START).double()
    for times in (1, 2, 3):
        state = torch.tanh((state @ W) * w * times) + state
    state.sum().backward()
    for name, exact in (("w", w.grad), ("W", W.grad)):
        assert exact is not None
        np.testing.assert_allclose(gradients[name], exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))


def test_without_a_gradient() -> None:
    with pytest.raises(CellError, match=r"the gradient of TIR function 'turned' in cell 'step'.*register_gradient"):
        eb.compile(Cells, WEIGHTS, training=True)


def test_gradients_that_do_not_fit() -> None:
    eb.register_gradient("turned", lambda x, w, times, results, d: [d[0], None])
    with pytest.raises(CellError, match="2 gradients of TIR function 'turned'; expected 3, one for each argument"):
        eb.compile(Cells, WEIGHTS, training=True)
    eb.register_gradient("turned", lambda x, w, times, results, d: [R.sum(d[0]), None, None])
    with pytest.raises(CellError, match=r"gradient 0 of TIR function 'turned' is R.Tensor\(\(\)"):
        eb.compile(Cells, WEIGHTS, training=True)
    with pytest.raises(CellError, match="gradient of 'turned' is a int; expected a function"):
        eb.register_gradient("turned", 1)  # type: ignore[arg-type]
