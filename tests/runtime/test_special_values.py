"""NaN, infinities, zeros and tails of every elementary operator come out as PyTorch gives them, on every target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tvm import relax as rx
from tvm.script import relax as R

import edbatch_tvm as eb

INF, NAN = float("inf"), float("nan")
# fmt: off
X = np.array(
    [
        NAN, INF, -INF, 0.0, -0.0, 1e-37, -1e-37, 1e-20, 0.3, -0.3, 1.0, -1.0,
        9.5, -9.5, -20.0, 88.0, -88.0, -87.0, 89.0, 3e38, -3e38, 0.5, 2.0, -2.0,
    ],
    np.float32,
)
# fmt: on
Y = np.array([1.0, NAN, INF, -INF, 0.0, -0.0, 2.0, -3.0], np.float32).repeat(3)
H = len(X)

Form = Callable[..., Any]


def _c(value: float) -> Any:
    return rx.const(np.float32(value))


ONE: dict[str, tuple[Form, Form]] = {
    **{
        name: (getattr(R, name), getattr(torch, name))
        for name in ("exp", "log", "sigmoid", "tanh", "erf", "sqrt", "rsqrt", "sin", "cos", "abs", "floor", "ceil")
    },
    "relu": (R.nn.relu, torch.relu),
    "clip": (lambda x: R.clip(x, -1, 1), lambda x: x.clamp(-1, 1)),
    "silu": (R.nn.silu, torch.nn.functional.silu),
    "gelu": (
        R.nn.gelu,
        lambda x: torch.nn.functional.gelu(x.double()).float(),
    ),  # in float32, PyTorch's gelu(3e38) is inf
    "leaky_relu": (lambda x: R.nn.leakyrelu(x, 0.01), torch.nn.functional.leaky_relu),
    "log_sigmoid": (lambda x: R.log(R.sigmoid(x)), lambda x: torch.log(torch.sigmoid(x))),
    "itself_less": (lambda x: R.subtract(x, x), lambda x: x - x),
    "sum_less": (lambda x: R.subtract(R.add(x, _c(1e8)), x), lambda x: (x + 1e8) - x),
    "itself_by": (lambda x: R.divide(x, x), lambda x: x / x),
    "by_zero": (lambda x: R.divide(x, _c(0.0)), lambda x: x / 0.0),
    "zero_by": (lambda x: R.divide(_c(0.0), x), lambda x: 0.0 / x),
    "times_zero": (lambda x: R.multiply(x, _c(0.0)), lambda x: x * 0.0),
    "zero_times": (lambda x: R.multiply(_c(0.0), x), lambda x: 0.0 * x),
    "plus_zero": (lambda x: R.add(x, _c(0.0)), lambda x: x + 0.0),
    "is_itself": (lambda x: R.astype(R.equal(x, x), "float32"), lambda x: (x == x).float()),
    "is_nan": (lambda x: R.astype(R.not_equal(x, x), "float32"), lambda x: (x != x).float()),
    "isnan": (lambda x: R.astype(R.isnan(x), "float32"), lambda x: x.isnan().float()),
    "softmax": (lambda x: R.nn.softmax(x, axis=-1), lambda x: x.softmax(-1)),
    "log_softmax": (lambda x: R.nn.log_softmax(x, axis=-1), lambda x: x.log_softmax(-1)),
    "max": (lambda x: R.max(x, axis=0, keepdims=True), lambda x: x.amax(0, keepdim=True)),
    "min": (lambda x: R.min(x, axis=0, keepdims=True), lambda x: x.amin(0, keepdim=True)),
    "sum": (lambda x: R.sum(x, axis=0, keepdims=True), lambda x: x.sum(0, keepdim=True)),
    "mean": (lambda x: R.mean(x, axis=0, keepdims=True), lambda x: x.mean(0, keepdim=True)),
}
TWO: dict[str, tuple[Form, Form]] = {
    "maximum": (R.maximum, torch.maximum),
    "minimum": (R.minimum, torch.minimum),
    "power": (R.power, torch.pow),
    "less": (lambda x, y: R.astype(R.less(x, y), "float32"), lambda x, y: (x < y).float()),
    "not_equal": (lambda x, y: R.astype(R.not_equal(x, y), "float32"), lambda x, y: (x != y).float()),
    "greater_equal": (lambda x, y: R.astype(R.greater_equal(x, y), "float32"), lambda x, y: (x >= y).float()),
    "where": (lambda x, y: R.where(R.less(x, y), x, y), lambda x, y: torch.where(x < y, x, y)),
    "either": (
        lambda x, y: R.astype(R.logical_or(R.less(x, y), R.greater_equal(x, y)), "float32"),
        lambda x, y: ((x < y) | (x >= y)).float(),
    ),
}
OPERATORS = ONE | TWO


def _module(names: list[str]) -> Any:
    builder = rx.BlockBuilder()
    for name in names:
        spec = rx.TensorType((H,), "float32")
        args = [rx.Var("x", spec), *([rx.Var("y", spec)] if name in TWO else [])]
        with builder.function(name, args, attrs={"num_input": len(args)}):
            builder.emit_func_output(builder.emit(OPERATORS[name][0](*args)))
    return builder.get()


@pytest.mark.parametrize("fast_math", [True, False])
@pytest.mark.parametrize("target", ["llvm", "cuda-emulated", pytest.param("haswell", marks=pytest.mark.slow)])
def test_operators_at_the_edges(target: str, fast_math: bool) -> None:
    kind = {"kind": "llvm", "mcpu": target} if target == "haswell" else target
    model = eb.compile(_module(list(OPERATORS)), {}, target=kind, fast_math=fast_math)
    wrong = []
    for name, (_, reference) in OPERATORS.items():
        rows = [(X,), (X[8:].repeat(2)[:H],), (np.full(H, -INF, np.float32),), (np.r_[X[8:], X[8:]][:H],)]
        rows = [(row[0], np.roll(Y, number)) if name in TWO else row for number, row in enumerate(rows)]
        for row in rows:
            builder = model.builder()
            got = np.asarray(model([builder.finish(builder.call(name, *row))])[0])
            with np.errstate(all="ignore"):
                want = reference(*(torch.from_numpy(a) for a in row)).numpy()
            least = (
                1e-6 * float(np.abs(row[0][np.isfinite(row[0])]).sum(dtype=np.float64))
                if name in ("sum", "mean")
                else 1.2e-38
            )
            close = np.isclose(got, want, rtol=3e-6, atol=least, equal_nan=True)
            zeros = (got == 0) & (want == 0) & (np.signbit(got) != np.signbit(want))
            if name in ("maximum", "minimum", "min", "max", "where"):
                zeros[:] = False
            if not close.all() or zeros.any():
                bad = ~close | zeros
                wrong.append(
                    (name, *(a[bad][:3] if len(a) == len(bad) else a for a in row), got[bad][:3], want[bad][:3])
                )
    assert not wrong, "\n".join(map(str, wrong))
