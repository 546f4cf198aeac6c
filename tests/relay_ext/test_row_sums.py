"""Sums of long rows: no less accurate than twice PyTorch's own float32 error, and right for special values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tvm import relax
from tvm.relax import op as R

import edbatch_tvm as eb

WIDTHS = (16, 64, 100, 257)


def _layer_norm(x: Any) -> Any:
    width = x.ty.shape.values[-1].value
    scale, shift = (relax.const(np.full(width, value, "float32")) for value in (1.0, 0.0))
    return R.nn.layer_norm(x, scale, shift, axes=[-1])


FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[torch.Tensor], torch.Tensor]]] = {
    "softmax": (lambda x: R.nn.softmax(x, axis=-1), lambda x: x.softmax(-1)),
    "log_softmax": (lambda x: R.nn.log_softmax(x, axis=-1), lambda x: x.log_softmax(-1)),
    "layer_norm": (_layer_norm, lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:])),
}


def _cells() -> Any:
    builder = relax.BlockBuilder()
    for name, (function, _) in FUNCTIONS.items():
        for width in WIDTHS:
            x = relax.Var("x", relax.TensorType((2, width), "float32"))
            with builder.function(f"{name}{width}", [x], attrs={"num_input": 1}):
                with builder.dataflow():
                    y = builder.emit_output(function(x))
                builder.emit_func_output(y)
    return builder.finalize()


def _rows(width: int) -> np.ndarray:
    rng = np.random.default_rng(width)
    scale = 10.0 ** rng.uniform(-3, 2, (40, 1, 1))
    return ((rng.normal(size=(40, 2, width)) + rng.choice([0, 1, 100], (40, 1, 1))) * scale).astype("float32")


@pytest.mark.parametrize("target", ["llvm", "cuda-emulated"])
def test_errors_are_at_most_twice_those_of_pytorch(target: str) -> None:
    model = eb.compile(_cells(), target=target)
    for name, (_, reference) in FUNCTIONS.items():
        for width in WIDTHS:
            rows = _rows(width)
            rows[0, 0, 0], rows[1, 1] = np.nan, -np.inf
            b = model.builder()
            result = np.stack([np.asarray(y) for y in model([b.finish(b.call(f"{name}{width}", row)) for row in rows])])
            single = reference(torch.from_numpy(rows)).numpy()
            exact = reference(torch.from_numpy(rows).double()).numpy()
            assert np.array_equal(np.isnan(result), np.isnan(single)), (name, width)
            size = np.nanmax(np.abs(exact[2:]), -1, keepdims=True)
            ours, theirs = (float((np.abs(y[2:] - exact[2:]) / size).max()) for y in (result, single))
            assert ours <= max(2 * theirs, 1.2e-7), (name, width, ours, theirs)
