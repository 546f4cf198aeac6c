"""Gradients of operators that select, repeat or rearrange elements."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax import op as R

from edbatch_tvm.tvm_compat import Call, tirx
from relay_ext.gradients.rules import Emitter, Gradients, NoGradientError, dtype_of, extents, number, rule


@rule("reshape", "flatten", "squeeze", "expand_dims")
def _shaped(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    x = call.args[0]
    return [emit(R.reshape(g, x.ty.shape)), *[None] * (len(call.args) - 1)]


@rule("permute_dims")
def _permute(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    axes = permuted_axes(call)
    return [emit(R.permute_dims(g, [axes.index(axis) for axis in range(len(axes))]))]


def permuted_axes(call: Any) -> tuple[int, ...]:
    """The axes of the operand of a ``permute_dims`` in the order of the result."""
    ndim = call.args[0].ty.ndim
    return tuple(int(a) % ndim for a in call.attrs.axes) if call.attrs.axes is not None else tuple(range(ndim))[::-1]


@rule("broadcast_to")
def _broadcast(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    return [emit.fit(g, call.args[0]), None]


@rule("concat")
def _concat(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    axis = int(call.attrs.axis or 0) % result.ty.ndim
    begin: Any = 0
    parts = []
    for part in call.args[0].fields:
        end = begin + _static(extents(part)[axis], "concat")
        parts.append(emit(R.strided_slice(g, [axis], [begin], [end])))
        begin = end
    return [parts]


@rule("stack")
def _stack(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    axis = int(call.attrs.axis or 0) % result.ty.ndim
    parts = []
    for place, part in enumerate(call.args[0].fields):
        row = emit(R.strided_slice(g, [axis], [place], [place + 1]))
        parts.append(emit(R.reshape(row, part.ty.shape)))
    return [parts]


@rule("split")
def _split(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    parts = [emit.zeros(ty) if one is None else one for one, ty in zip(g, result.ty.fields, strict=True)]
    return [emit(R.concat(parts, axis=int(call.attrs.axis)))]


@rule("strided_slice")
def _slice(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    for axis, places in sliced_places(call).items():
        g = _scatter(emit, g, axis, places, _static(extents(call.args[0])[axis], "strided_slice"))
    return [g, *[None] * (len(call.args) - 1)]


def sliced_places(call: Any) -> dict[int, range]:
    """For each axis that a ``strided_slice`` divides, the places that it takes."""
    x = call.args[0]
    axes, begins, ends = (_numbers(one) for one in call.args[1:4])
    strides = _numbers(call.args[4]) if len(call.args) > 4 else [1] * len(axes)
    found = {}
    for axis, begin, end, stride in zip(axes, begins, ends, strides, strict=True):
        extent = _static(extents(x)[axis % x.ty.ndim], "strided_slice")
        found[axis % x.ty.ndim] = range(extent)[slice(begin, _end(end, extent, stride), stride)]
    return found


def scattered_slices(emit: Emitter, slices: Sequence[tuple[int, range, Any]], whole: Any) -> list[Any]:
    """Gradients of slices of one tensor as gradients of it: one where slices of an axis lie side by side.

    Parameters
    ----------
    emit : Emitter
    slices : sequence of (int, range, relax.Var)
        An axis, the places on it, which follow each other, and the gradient.
    whole : relax.Var
        What was sliced.
    """
    axis = slices[0][0]
    rising = sorted(slices, key=lambda one: one[1].start)
    apart = all(first[1].stop <= second[1].start for first, second in pairwise(rising))
    if not apart or any(one[0] != axis for one in slices):
        return [_scatter(emit, g, own, some, _static(extents(whole)[own], "strided_slice")) for own, some, g in slices]
    parts, end = [], 0
    for _, some, g in [*rising, (axis, range(_static(extents(whole)[axis], "strided_slice"), -1), None)]:
        if some.start > end:
            shape = extents(whole)
            shape[axis] = tirx.IntImm("int64", some.start - end)
            parts.append(emit(R.zeros(relax.ShapeExpr(shape), dtype_of(whole))))
        if g is not None:
            parts.append(g)
            end = some.stop
    return [emit(R.concat(parts, axis=axis)) if len(parts) > 1 else parts[0]]


def _end(end: int, extent: int, stride: int) -> int | None:
    """The end of a slice as Python has it: one before the first element, going down, is None there."""
    return None if stride < 0 and end < -extent else end


def _scatter(emit: Emitter, g: Any, axis: int, places: range, extent: int) -> Any:
    """`g` at `places` of an axis, and zeros elsewhere."""
    if list(places) == list(range(extent)):
        return emit(g)
    if places.step == 1 and len(places):
        around = []
        for length in (places.start, extent - places.stop):
            shape = extents(g)
            shape[axis] = tirx.IntImm("int64", length)
            around.append(emit(R.zeros(relax.ShapeExpr(shape), dtype_of(g))) if length else None)
        return emit(R.concat([one for one in (around[0], emit(g), around[1]) if one is not None], axis=axis))
    source = np.zeros(extent, np.int64)
    found = np.zeros(extent, bool)
    source[list(places)], found[list(places)] = np.arange(len(places)), True
    if not len(places):
        shape = extents(g)
        shape[axis] = tirx.IntImm("int64", extent)
        return emit(R.zeros(relax.ShapeExpr(shape), dtype_of(g)))
    mask = found.reshape([-1 if one == axis else 1 for one in range(g.ty.ndim)])
    rows = emit(R.take(g, relax.const(source), axis=axis))
    return emit(R.where(relax.const(mask), rows, number(0, g)))


@rule("flip")
def _flip(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    return [emit(R.flip(g, int(call.attrs.axis)))]


@rule("repeat")
def _repeat(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    x, times = call.args[0], int(call.attrs.repeats)
    if call.attrs.axis is None:
        apart = emit(R.reshape(g, [-1, times]))
        return [emit(R.reshape(R.sum(apart, axis=[1]), x.ty.shape))]
    axis = int(call.attrs.axis) % x.ty.ndim
    shape = extents(x)
    apart = emit(R.reshape(g, relax.ShapeExpr([*shape[: axis + 1], tirx.IntImm("int64", times), *shape[axis + 1 :]])))
    return [emit(R.sum(apart, axis=[axis + 1]))]


@rule("tile")
def _tile(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    x = call.args[0]
    times = [int(one) for one in call.attrs.repeats]
    shape = [*[tirx.IntImm("int64", 1)] * (len(times) - x.ty.ndim), *extents(x)]
    times = [*[1] * (len(shape) - len(times)), *times]
    apart = [one for pair in zip(times, shape, strict=True) for one in (tirx.IntImm("int64", pair[0]), pair[1])]
    total = emit(R.sum(R.reshape(g, relax.ShapeExpr(apart)), axis=list(range(0, len(apart), 2))))
    return [emit(R.reshape(total, x.ty.shape))]


@rule("triu", "tril")
def _triangle(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    return [emit(Call(call.op, [g, *call.args[1:]], call.attrs)), *[None] * (len(call.args) - 1)]


@rule("take")
def _take(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    x, index = call.args
    if call.attrs.axis is None and x.ty.ndim != 1:
        raise NoGradientError("the gradient of take without an axis", "an axis")
    axis = int(call.attrs.axis or 0) % x.ty.ndim
    lead = extents(x)[:axis]
    rest = extents(x)[axis + 1 :]
    count = _static(extents(x)[axis], "take")
    # Element j of the axis gets the sum over all places whose index is j: where, not a product, keeps infinities apart.
    flat = emit(R.reshape(index, [-1]))
    places = emit(
        R.where(R.less(flat, relax.const(0, dtype_of(flat))), flat + relax.const(count, dtype_of(flat)), flat)
    )
    length = extents(places)[0]
    g = emit(R.reshape(g, relax.ShapeExpr([*lead, length, *rest])))
    numbers = np.arange(count).reshape(-1, 1).astype(dtype_of(places))
    hit = emit(R.equal(relax.const(numbers), R.expand_dims(places, [0])))  # (count, length)
    for _ in rest:
        hit = emit(R.expand_dims(hit, [-1]))
    spread = emit(R.where(hit, R.expand_dims(g, [axis]), number(0, g)))  # (lead, count, length, rest)
    return [emit(R.sum(spread, axis=[axis + 1])), None]


def _static(extent: Any, name: str) -> int:
    if not isinstance(extent, tirx.IntImm):
        raise NoGradientError(
            f"the gradient of {name} along variadic rows", "another axis, or a reduction over the rows"
        )
    return int(extent)


def _numbers(thing: Any) -> list[int]:
    fields = thing.fields if isinstance(thing, relax.Tuple) else thing.values
    return [int(one.value) for one in fields]
