"""Gradients of reductions and of what works along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax
from tvm.relax import op as R

from edbatch_tvm.tvm_compat import tirx
from relay_ext.gradients.rules import (
    Emitter,
    Gradients,
    NoGradientError,
    dtype_of,
    extents,
    number,
    reduced_axes,
    rule,
)


@rule("sum")
def _sum(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    return [emit.spread(g, call.args[0], reduced_axes(call), bool(call.attrs.keepdims))]


@rule("mean")
def _mean(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    x, axes, keepdims = call.args[0], reduced_axes(call), bool(call.attrs.keepdims)
    return [emit.spread(R.divide(g, _count(emit, x, axes, keepdims)), x, axes, keepdims)]


def _count(emit: Emitter, x: Any, axes: list[int], keepdims: bool) -> Any:
    """The number of elements along some axes; that of variadic rows is counted."""
    sizes = [extents(x)[axis] for axis in axes]
    if all(isinstance(size, tirx.IntImm) for size in sizes):
        return number(float(np.prod([int(size) for size in sizes])), x)
    return emit(R.sum(emit.full(x, 1.0), axis=axes, keepdims=keepdims))


@rule("max", "min")
def _extreme(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    """Elements that are the largest share the gradient, as in ``torch.amax``."""
    x, axes, keepdims = call.args[0], reduced_axes(call), bool(call.attrs.keepdims)
    hit = emit(R.equal(x, emit.spread(result, x, axes, keepdims)))
    hits = emit(R.sum(R.astype(hit, dtype_of(x)), axis=axes, keepdims=keepdims))
    share = emit.spread(R.divide(g, hits), x, axes, keepdims)
    return [emit(R.where(hit, share, number(0, x)))]


@rule("prod")
def _product(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    """The product of the others, which is right where elements are zero."""
    x, axes = call.args[0], reduced_axes(call)
    sizes = [extents(x)[axis] for axis in axes]
    if not all(isinstance(size, tirx.IntImm) for size in sizes):
        raise NoGradientError("the gradient of a product over variadic rows", "another reduction")
    kept = [axis for axis in range(x.ty.ndim) if axis not in axes]
    shape = [extents(x)[axis] for axis in kept]
    count = int(np.prod([int(size) for size in sizes]))
    last = emit(R.reshape(R.permute_dims(x, [*kept, *axes]), relax.ShapeExpr([*shape, tirx.IntImm("int64", count)])))
    own = relax.const(np.eye(count, dtype=bool))
    others = emit(R.where(own, number(1, x), R.expand_dims(last, [-2])))
    flat = emit(R.reshape(g, relax.ShapeExpr([*shape, tirx.IntImm("int64", 1)])))
    found = emit(flat * R.prod(others, axis=[-1]))
    found = emit(R.reshape(found, relax.ShapeExpr([*shape, *sizes])))
    order = [*kept, *axes]
    return [emit(R.permute_dims(found, [order.index(axis) for axis in range(x.ty.ndim)]))]


@rule("variance")
def _variance(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    x, axes, keepdims = call.args[0], reduced_axes(call), bool(call.attrs.keepdims)
    apart = emit(x - R.mean(x, axis=axes, keepdims=True))
    each = emit.spread(R.divide(g, _count(emit, x, axes, keepdims)), x, axes, keepdims)
    return [emit(number(2, x) * apart * each)]


@rule("std")
def _deviation(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    x, axes, keepdims = call.args[0], reduced_axes(call), bool(call.attrs.keepdims)
    apart = emit(x - R.mean(x, axis=axes, keepdims=True))
    each = emit(R.divide(R.divide(g, _count(emit, x, axes, keepdims)), result))
    return [emit(apart * emit.spread(each, x, axes, keepdims))]


@rule("cumsum")
def _cumsum(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    if call.attrs.exclusive or call.attrs.axis is None:
        raise NoGradientError("the gradient of cumsum, exclusive or without an axis", "an inclusive one along an axis")
    axis = int(call.attrs.axis)
    return [emit(R.flip(R.cumsum(R.flip(g, axis), axis), axis))]


@rule("nn.softmax")
def _softmax(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    weighted = emit(g * result)
    return [emit(weighted - result * R.sum(weighted, axis=[int(call.attrs.axis)], keepdims=True))]


@rule("nn.log_softmax")
def _log_softmax(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    return [emit(g - R.exp(result) * R.sum(g, axis=[int(call.attrs.axis)], keepdims=True))]


@rule("nn.layer_norm")
def _layer_norm(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    x, gamma, beta = call.args
    axes = [int(axis) % x.ty.ndim for axis in call.attrs.axes]
    apart = emit(x - R.mean(x, axis=axes, keepdims=True))
    scale = emit(R.rsqrt(R.mean(apart * apart, axis=axes, keepdims=True) + number(float(call.attrs.epsilon), x)))
    return _normalized(emit, (gamma, beta), emit(apart * scale), scale, axes, g, centered=True)


@rule("nn.rms_norm")
def _rms_norm(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    x, gamma = call.args
    axes = [int(axis) % x.ty.ndim for axis in call.attrs.axes]
    scale = emit(R.rsqrt(R.mean(x * x, axis=axes, keepdims=True) + number(float(call.attrs.epsilon), x)))
    return _normalized(emit, (gamma,), emit(x * scale), scale, axes, g, centered=False)


def _normalized(
    emit: Emitter, weights: tuple[Any, ...], normal: Any, scale: Any, axes: list[int], g: Any, centered: bool
) -> Gradients:
    """The gradients of ``normal * gamma + beta`` in x, gamma and beta; `normal` is x divided by its size."""
    d = emit(g * weights[0])
    along = emit(normal * R.mean(d * normal, axis=axes, keepdims=True))
    rest = emit(d - R.mean(d, axis=axes, keepdims=True)) if centered else d
    found = [emit(scale * (rest - along)), emit.fit(g * normal, weights[0])]
    return [*found, emit.fit(g, weights[1])] if len(weights) > 1 else found
