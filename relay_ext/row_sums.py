"""Rules of :class:`~relay_ext.legalize_cells.LegalizeCells` for operators that sum long rows.

TVM adds the elements of a row one after the other, so that the rounding error grows with their number, and takes the
variance of a layer norm as a difference of two sums, which cancels where the mean is large. Here a long row is summed
in :data:`LANES` interleaved parts, and a variance is the mean of squared differences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax, te, topi

from edbatch_tvm.tvm_compat import TensorType, tirx
from relay_ext.call_tvm_rule import tvm_rule

LANES = 16
"""Partial sums of a row; also lanes of a vector."""

LEAST = 64
"""Shorter sums are made in one loop."""


def row_sum(x: te.Tensor, axes: Sequence[int]) -> te.Tensor:
    """The sum over some axes, which stay with extent 1.

    Before::

        s[i] += x[i, k]                                      # k < n

    After::

        p[i, lane] += x[i, 16 * k + lane]                    # k < n / 16, 0 beyond the end of the row
        s[i] += p[i, lane]
    """
    last = x.shape[axes[-1]]
    if len(axes) != 1 or not isinstance(last, tirx.IntImm) or int(last) < LEAST:
        return topi.sum(x, axis=list(axes), keepdims=True)
    (axis,), count = axes, int(last)
    rows = te.reduce_axis((0, -(-count // LANES)), name="k")

    def part(*at: Any) -> Any:
        *outer, lane = at
        place = rows * LANES + lane
        inside = [*outer[:axis], place, *outer[axis:]]
        if count % LANES:
            element = tirx.if_then_else(place < count, x(*inside), tirx.const(0.0, x.dtype))
        else:
            element = x(*inside)
        return te.sum(element, axis=rows)

    kept = [*x.shape[:axis], *x.shape[axis + 1 :]]
    parts = te.compute([*kept, LANES], part, name="parts")
    lane = te.reduce_axis((0, LANES), name="lane")

    def total(*at: Any) -> Any:
        return te.sum(parts(*at[:axis], *at[axis + 1 :], lane), axis=lane)

    shape = [*x.shape[:axis], 1, *x.shape[axis + 1 :]]
    return te.compute(shape, total, name="row_sum")


def _row_mean(x: te.Tensor, axes: Sequence[int]) -> te.Tensor:
    count: Any = tirx.const(1, "int64")
    for axis in axes:
        count = count * x.shape[axis]
    return topi.divide(row_sum(x, axes), tirx.Cast(x.dtype, count))


def _variance(x: te.Tensor, axes: Sequence[int]) -> tuple[te.Tensor, te.Tensor]:
    """Differences from the mean, and the mean of their squares.

    The mean is rounded: what is left of it in the differences is taken away by their own mean.
    """
    centred = topi.subtract(x, _row_mean(x, axes))
    centred = topi.subtract(centred, _row_mean(centred, axes))
    return centred, _row_mean(topi.multiply(centred, centred), axes)


def _softmax(x: te.Tensor, axis: int) -> te.Tensor:
    power = topi.exp(topi.subtract(x, topi.max(x, axis=axis, keepdims=True)))
    return topi.divide(power, row_sum(power, [axis]))


def _log_softmax(x: te.Tensor, axis: int) -> te.Tensor:
    shifted = topi.subtract(x, topi.max(x, axis=axis, keepdims=True))
    return topi.subtract(shifted, topi.log(row_sum(topi.exp(shifted), [axis])))


def _layer_norm(x: te.Tensor, scale: te.Tensor, shift: te.Tensor, axes: Sequence[int], epsilon: float) -> te.Tensor:
    centred, variance = _variance(x, axes)
    root = topi.sqrt(topi.add(variance, tirx.const(epsilon, x.dtype)))
    shape = [extent if axis in axes else 1 for axis, extent in enumerate(x.shape)]
    normal = topi.divide(centred, root)
    return topi.add(topi.multiply(normal, topi.reshape(scale, shape)), topi.reshape(shift, shape))


def _long(x: relax.Expr, axes: Sequence[int]) -> bool:
    """Whether a float tensor has one axis to reduce that is long."""
    shape = x.ty.shape.values if isinstance(x.ty, TensorType) and x.ty.shape is not None else ()
    known = len(axes) == 1 and len(shape) > axes[0] and isinstance(shape[axes[0]], tirx.IntImm)
    return bool(known and int(shape[axes[0]]) >= LEAST and str(x.ty.dtype).startswith("float"))


def _axes(call: relax.Call, axes: Sequence[Any]) -> list[int]:
    return sorted(int(axis) % call.args[0].ty.ndim for axis in axes)


def _along_axis(function: Callable[[te.Tensor, int], te.Tensor]) -> Callable[..., relax.Expr]:
    def rule(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        (axis,) = _axes(call, [call.attrs.axis])
        if not _long(call.args[0], [axis]):
            return tvm_rule(builder, call)
        return builder.call_te(function, call.args[0], axis, primfunc_name_hint=call.op.name.rpartition(".")[2])

    return rule


def _legalize_layer_norm(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    axes = _axes(call, call.attrs.axes)
    epsilon = float(call.attrs.epsilon)
    return builder.call_te(_layer_norm, *call.args, axes, epsilon, primfunc_name_hint="layer_norm")


SUM_RULES: dict[str, Callable[..., relax.Expr]] = {
    "relax.nn.softmax": _along_axis(_softmax),
    "relax.nn.log_softmax": _along_axis(_log_softmax),
    "relax.nn.layer_norm": _legalize_layer_norm,
}
