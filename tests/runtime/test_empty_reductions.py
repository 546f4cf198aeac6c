"""Reductions over no rows: what PyTorch gives where it gives anything, and -inf and inf for max and min."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm import IRModule, relax, tirx
from tvm.relax import op as R

import edbatch_tvm as eb

H = 4
W = np.arange(H * H, dtype="float32").reshape(H, H)
SOME = np.array([[1.0, -2.0, 3.0, 0.5], [0.25, 4.0, -1.0, 2.0]], "float32")

REDUCTIONS: dict[str, tuple[Callable[..., Any], float, Callable[..., Any]]] = {
    "max": (R.max, -np.inf, np.max),
    "min": (R.min, np.inf, np.min),
    "sum": (R.sum, 0.0, np.sum),
    "prod": (R.prod, 1.0, np.prod),
    "mean": (R.mean, np.nan, np.mean),
}
"""The operator, what it gives over no rows, and the same of NumPy."""


def cells() -> IRModule:
    """For each reduction a cell of the rows themselves, and one of a product, which is a stage; and attention."""
    builder = relax.BlockBuilder()
    for name, (operator, _, _) in REDUCTIONS.items():
        for kind in ("rows", "stage"):
            x = relax.Var("x", relax.TensorType((tirx.Var("k", "int64"), H), "float32"))
            weight = relax.Var("W", relax.TensorType((H, H), "float32"))
            with builder.function(f"{name}_{kind}", [x, weight][: 1 + (kind == "stage")], attrs={"num_input": 1}):
                with builder.dataflow():
                    value = x if kind == "rows" else builder.emit(R.matmul(x, weight))
                    out = builder.emit_output(operator(value, axis=0))
                builder.emit_func_output(out)
    x = relax.Var("x", relax.TensorType((tirx.Var("k", "int64"), H), "float32"))
    query = relax.Var("q", relax.TensorType((H,), "float32"))
    with builder.function("attention", [x, query], attrs={"num_input": 2}):
        with builder.dataflow():
            weights = builder.emit(R.nn.softmax(builder.emit(R.matmul(x, query)), axis=-1))
            out = builder.emit_output(R.matmul(weights, x))
        builder.emit_func_output(out)
    return builder.get()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target": "numpy"},
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                {"granularity": "op"},
                {"granularity": "group"},
                {"fast_math": False},
                {"target": "cuda-emulated"},
            )
        ),
    ],
    ids=str,
)
def test_reductions_over_no_rows(options: dict[str, Any]) -> None:
    model = eb.compile(cells(), {"W": W}, **options)
    for lists in ([[]], [[], []], [SOME, [], SOME[:1], []]):
        b = model.builder()
        made = [
            [b.call(f"{name}_{kind}", list(rows)) for name in REDUCTIONS for kind in ("rows", "stage")]
            + [b.call("attention", list(rows), np.ones(H, "float32"))]
            for rows in lists
        ]
        got = iter(model([b.finish([value for values in made for value in values])])[0])
        for rows in lists:
            for name, (_, over_none, usual) in REDUCTIONS.items():
                for values in (rows, rows @ W if len(rows) else rows):
                    expected = usual(values, axis=0) if len(rows) else np.full(H, over_none)
                    np.testing.assert_allclose(next(got), expected, rtol=1e-5, err_msg=f"{name} over {len(rows)}")
            attention = np.zeros(H)
            if len(rows):
                weights = np.exp(rows.sum(1) - rows.sum(1).max())
                attention = weights / weights.sum() @ rows
            np.testing.assert_allclose(next(got), attention, rtol=1e-5, atol=1e-6)
