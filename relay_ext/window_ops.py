"""Rules of :class:`~relay_ext.legalize_cells.LegalizeCells` for windows: max pooling and transposed convolution.

TVM pads the input of a max pooling with the least finite number, which wins over -inf, and makes a convolution of a
transposed one, with zeros between and around the elements, which are NaN times an infinite weight.
"""

from __future__ import annotations

from typing import Any

from tvm import relax, te, topi

from edbatch_tvm.tvm_compat import tirx
from relay_ext.call_tvm_rule import tvm_rule


def _ints(values: Any) -> list[int]:
    return [int(value) for value in values]


def _max_pool(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    (given,) = call.args
    count = given.ty.ndim - 2
    attributes = call.attrs
    known = str(attributes.layout) in ("NCW", "NCHW", "NCDHW") and attributes.layout == attributes.out_layout
    if not known or not str(given.ty.dtype).startswith("float"):
        return tvm_rule(builder, call)
    size, stride, dilation = (_ints(one) for one in (attributes.pool_size, attributes.strides, attributes.dilation))
    before = _ints(attributes.padding)[:count]
    extents, results = _ints(given.ty.shape.values[2:]), _ints(call.ty.shape.values[2:])
    after = [
        max((results[d] - 1) * stride[d] + (size[d] - 1) * dilation[d] + 1 - extents[d] - before[d], 0)
        for d in range(count)
    ]

    def pool(x: te.Tensor) -> te.Tensor:
        lowest = tirx.const(float("-inf"), x.dtype)
        padded = topi.nn.pad(x, [0, 0, *before], [0, 0, *after], lowest) if any(before + after) else x
        window = [te.reduce_axis((0, size[d]), name=f"k{d}") for d in range(count)]

        def largest(*at: Any) -> Any:
            places = [at[2 + d] * stride[d] + window[d] * dilation[d] for d in range(count)]
            return te.max(padded(at[0], at[1], *places), axis=window)

        return te.compute([*x.shape[:2], *results], largest, name="max_pool")

    return builder.call_te(pool, given, primfunc_name_hint=f"max_pool{count}d")


def _conv_transpose(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Every element of the result looks for the products that are meant for it."""
    given, weight = call.args
    count, attributes = given.ty.ndim - 2, call.attrs
    if str(attributes.data_layout) not in ("NCW", "NCHW") or str(attributes.kernel_layout) not in ("IOW", "IOHW"):
        return tvm_rule(builder, call)
    stride, dilation, before = (_ints(one) for one in (attributes.strides, attributes.dilation, attributes.padding))
    groups, shape = int(attributes.groups), list(call.ty.shape.values)
    extents, size = _ints(given.ty.shape.values[1:]), _ints(weight.ty.shape.values[1:])
    inputs, outputs = extents[0] // groups, size[0]

    def convolve(x: te.Tensor, weight: te.Tensor) -> te.Tensor:
        channel = te.reduce_axis((0, inputs), name="channel")
        window = [te.reduce_axis((0, size[1 + d]), name=f"k{d}") for d in range(count)]

        def element(*at: Any) -> Any:
            met: Any = None
            places = []
            for d in range(count):
                place = at[2 + d] + before[d] - window[d] * dilation[d]
                conditions = [place >= 0, place < extents[1 + d] * stride[d]]
                if stride[d] > 1:
                    conditions.append(tirx.EQ(tirx.floormod(place, stride[d]), tirx.const(0, place.ty.dtype)))
                for one in conditions:
                    met = one if met is None else tirx.And(met, one)
                places.append(tirx.floordiv(place, stride[d]))
            source = channel + tirx.floordiv(at[1], outputs) * inputs
            product = x(at[0], source, *places) * weight(source, tirx.floormod(at[1], outputs), *window)
            return te.sum(tirx.if_then_else(met, product, tirx.const(0.0, x.dtype)), axis=[channel, *window])

        return te.compute(shape, element, name="conv_transpose")

    return builder.call_te(convolve, given, weight, primfunc_name_hint=f"conv{count}d_transpose")


WINDOW_RULES: dict[str, Any] = {
    **{f"relax.nn.max_pool{count}d": _max_pool for count in (1, 2, 3)},
    **{f"relax.nn.conv{count}d_transpose": _conv_transpose for count in (1, 2)},
}
"""Rules by operator."""
