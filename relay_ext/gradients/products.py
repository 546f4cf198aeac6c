"""Gradients of products of matrices and vectors."""

from __future__ import annotations

from typing import Any

from tvm.relax import op as R

from relay_ext.gradients.rules import Emitter, Gradients, rule


@rule("matmul")
def _matmul(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    x, y = call.args
    return [left_gradient(emit, x, y, g), right_gradient(emit, x, y, g)]


def left_gradient(emit: Emitter, x: Any, y: Any, g: Any) -> Any:
    """The gradient of x in ``matmul(x, y)``."""
    if y.ty.ndim == 1:  # g lacks the last axis of both
        return emit(g * y if x.ty.ndim == 1 else R.expand_dims(g, [-1]) * y)
    if x.ty.ndim == 1 and y.ty.ndim > 2:
        rows = emit(R.matmul(R.expand_dims(g, [-2]), transposed(emit, y)))
        return emit.fit(R.reshape(rows, _joined(rows)), x)
    return emit.fit(R.matmul(g, transposed(emit, y)), x)


def right_gradient(emit: Emitter, x: Any, y: Any, g: Any) -> Any:
    """The gradient of y in ``matmul(x, y)``."""
    if y.ty.ndim == 1:
        return emit.fit(x * g if x.ty.ndim == 1 else x * R.expand_dims(g, [-1]), y)
    if x.ty.ndim == 1:
        return emit.fit(R.expand_dims(x, [-1]) * R.expand_dims(g, [-2]), y)
    return emit.fit(R.matmul(transposed(emit, x), g), y)


def transposed(emit: Emitter, x: Any) -> Any:
    """`x` with its last two axes exchanged."""
    axes = list(range(x.ty.ndim))
    axes[-2:] = axes[:-3:-1]
    return emit(R.permute_dims(x, axes))


def _joined(rows: Any) -> list[int]:
    return [-1, int(rows.ty.shape.values[-1])]
