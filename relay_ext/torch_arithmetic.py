"""Conversions of element-wise PyTorch operators: arithmetic, comparisons and choices, with PyTorch's dtypes."""

from __future__ import annotations

import operator
from typing import Any

from tvm import relax


def _scaled(build: Any, plain: Any) -> Any:
    """``x + alpha * y`` and ``x - alpha * y``; TVM's own conversion forgets alpha."""

    def convert(node: Any, importer: Any) -> relax.Var:
        factor = node.kwargs.get("alpha", 1)
        if factor == 1:
            return importer._binary_op(build, plain)(node)
        left, right = importer.retrieve_args(node)
        scaled = relax.const(right) if isinstance(right, int | float) else right
        scaled = importer.block_builder.emit(relax.op.multiply(scaled, relax.const(factor, str(left.ty.dtype))))
        return importer.block_builder.emit(build(left, scaled))

    return convert


def _tensors(importer: Any, *arguments: Any) -> list[Any]:
    """Arguments of an element-wise operator, tensors and numbers, as tensors of the dtype that PyTorch promotes to."""
    import torch

    emit = importer.block_builder.emit
    given = [importer.env[one] if hasattr(one, "op") else one for one in arguments]
    samples = [
        torch.empty([1] * one.ty.ndim, dtype=getattr(torch, str(one.ty.dtype))) if isinstance(one, relax.Expr) else one
        for one in given
    ]
    dtype = samples[0].dtype if isinstance(samples[0], torch.Tensor) else torch.result_type(samples[0], samples[-1])
    for sample in samples:
        dtype = torch.promote_types(dtype, torch.result_type(samples[0], sample)) if sample is not samples[0] else dtype
    name = str(dtype).removeprefix("torch.")
    return [
        relax.const(one, name)
        if not isinstance(one, relax.Expr)
        else one
        if str(one.ty.dtype) == name
        else emit(relax.op.astype(one, name))
        for one in given
    ]


def _clamp(node: Any, importer: Any) -> relax.Var:
    """``x.clamp(lowest, highest)`` with numbers or tensors of any shape, either of which may be missing."""
    emit = importer.block_builder.emit
    low, high = [node.args[at] if len(node.args) > at else node.kwargs.get(key) for at, key in ((1, "min"), (2, "max"))]
    bounds = [bound for bound in (low, high) if bound is not None]
    source, *bounds = _tensors(importer, node.args[0], *bounds)
    if low is not None:
        source = emit(relax.op.maximum(source, bounds.pop(0)))
    return emit(relax.op.minimum(source, bounds[0])) if high is not None else source


def _bound(build: Any) -> Any:
    """``x.clamp_min(bound)`` and ``x.clamp_max(bound)``."""

    def convert(node: Any, importer: Any) -> relax.Var:
        return importer.block_builder.emit(build(*_tensors(importer, *node.args[:2])))

    return convert


def _where(node: Any, importer: Any) -> relax.Var:
    """``where(condition, x, y)`` with x and y of any two dtypes."""
    one, other = _tensors(importer, node.args[1], node.args[2])
    condition = importer.env[node.args[0]]
    return importer.block_builder.emit(relax.op.where(condition, one, other))


def _logical(build: Any) -> Any:
    """``logical_not`` and its kin on numbers: everything but 0 is true."""

    def convert(node: Any, importer: Any) -> relax.Var:
        emit = importer.block_builder.emit
        given = [importer.env[one] for one in node.args]
        truth = [
            one if str(one.ty.dtype) == "bool" else emit(relax.op.not_equal(one, relax.const(0, str(one.ty.dtype))))
            for one in given
        ]
        return emit(build(*truth))

    return convert


def _modulus(node: Any, importer: Any) -> relax.Var:
    """``remainder(x, y)``: the sign of y; as PyTorch computes it, so that infinities come out alike."""
    return _remainder(importer, *_tensors(importer, *node.args[:2]))


def _remainder(importer: Any, x: Any, y: Any) -> Any:
    emit, op = importer.block_builder.emit, relax.op
    if not str(x.ty.dtype).startswith("float"):
        return emit(op.floor_mod(x, y))
    rest = emit(op.mod(x, y))
    return emit(op.where(_signs_differ(importer, rest, y), emit(op.add(rest, y)), rest))


def _signs_differ(importer: Any, rest: Any, y: Any) -> Any:
    """Where a remainder is not 0 and on the other side of it than the divisor."""
    emit, op = importer.block_builder.emit, relax.op
    zero = relax.const(0, str(y.ty.dtype))
    other_sign = emit(op.logical_xor(emit(op.less(y, zero)), emit(op.less(rest, zero))))
    return emit(op.logical_and(emit(op.not_equal(rest, zero)), other_sign))


def _divide(node: Any, importer: Any) -> relax.Var:
    """``div(x, y, rounding_mode=...)`` and ``floor_divide``, as PyTorch computes them."""
    emit, op = importer.block_builder.emit, relax.op
    floor = "floor_divide" in str(node.target)
    mode = "floor" if floor else (node.args[2] if len(node.args) > 2 else node.kwargs.get("rounding_mode"))
    x, y = _tensors(importer, *node.args[:2])
    dtype = str(x.ty.dtype)
    if not dtype.startswith("float"):
        if mode == "floor":
            return emit(op.floor_divide(x, y))
        x, y = emit(op.astype(x, "float32")), emit(op.astype(y, "float32"))
        ratio = emit(op.divide(x, y))
        return ratio if mode is None else emit(op.astype(emit(op.trunc(ratio)), dtype))
    ratio = emit(op.divide(x, y))
    if mode is None:
        return ratio
    if mode == "trunc":
        return emit(op.trunc(ratio))
    zero, half, one = relax.const(0, dtype), relax.const(0.5, dtype), relax.const(1, dtype)
    rest = emit(op.mod(x, y))
    exact = emit(op.divide(emit(op.subtract(x, rest)), y))
    lower = emit(op.where(_signs_differ(importer, rest, y), emit(op.subtract(exact, one)), exact))
    below = emit(op.floor(lower))
    nearest = emit(op.where(emit(op.greater(emit(op.subtract(lower, below)), half)), emit(op.ceil(lower)), below))
    return emit(op.where(emit(op.equal(y, zero)), ratio, nearest))


def _expm1(importer: Any, x: Any) -> Any:
    """``exp(x) - 1``; near 0, where that cancels, ``tanh(x / 2) * (exp(x) + 1)``."""
    emit, op, dtype = importer.block_builder.emit, relax.op, str(x.ty.dtype)
    zero, one = relax.const(0, dtype), relax.const(1, dtype)
    small = emit(op.less(emit(op.abs(x)), one))
    near = emit(op.where(small, x, zero))  # so that no gradient is 0 * inf
    half = emit(op.tanh(emit(op.multiply(near, relax.const(0.5, dtype)))))
    product = emit(op.multiply(half, emit(op.add(emit(op.exp(near)), one))))
    return emit(op.where(small, product, emit(op.subtract(emit(op.exp(x)), one))))


def _elu(node: Any, importer: Any) -> relax.Var:
    """``elu(x, alpha, scale, input_scale)``; TVM's own conversion forgets the scales, which make a selu of it."""
    emit, op = importer.block_builder.emit, relax.op
    x = importer.env[node.args[0]]
    given = [*node.args[1:], *(1,) * (4 - len(node.args))]
    names = ("alpha", "scale", "input_scale")
    alpha, scale, inner = (node.kwargs.get(name, value) for name, value in zip(names, given, strict=True))
    zero, *factors = (relax.const(value, str(x.ty.dtype)) for value in (0, scale, inner, alpha * scale))
    is_negative = emit(op.less_equal(x, zero))
    below = emit(op.where(is_negative, x, zero))
    power = _expm1(importer, emit(op.multiply(below, factors[1])) if inner != 1 else below)
    negative = emit(op.multiply(power, factors[2]))
    positive = emit(op.multiply(x, factors[0])) if scale != 1 else x
    return emit(op.where(is_negative, negative, positive))


def _celu(node: Any, importer: Any) -> relax.Var:
    """``celu(x, alpha)``."""
    emit, op = importer.block_builder.emit, relax.op
    x = importer.env[node.args[0]]
    alpha = node.args[1] if len(node.args) > 1 else node.kwargs.get("alpha", 1.0)
    zero, factor = relax.const(0, str(x.ty.dtype)), relax.const(alpha, str(x.ty.dtype))
    is_negative = emit(op.less_equal(x, zero))
    below = emit(op.where(is_negative, x, zero))
    negative = emit(op.multiply(_expm1(importer, emit(op.divide(below, factor))), factor))
    return emit(op.where(is_negative, negative, x))


def _log1p(node: Any, importer: Any) -> relax.Var:
    """``log(1 + x)``, corrected by what is lost in the sum; no gradient is 0 / 0."""
    emit, op = importer.block_builder.emit, relax.op
    (x,) = _tensors(importer, node.args[0])
    if not str(x.ty.dtype).startswith("float"):
        x = emit(op.astype(x, "float32"))
    zero, one, large = (relax.const(value, str(x.ty.dtype)) for value in (0, 1, 2.0**25))
    total = emit(op.add(x, one))
    small = emit(op.logical_and(emit(op.greater(total, zero)), emit(op.less(x, large))))
    divisor = emit(op.where(small, total, one))
    lost = emit(op.subtract(x, emit(op.subtract(total, one))))
    rest = emit(op.where(small, emit(op.divide(lost, divisor)), zero))
    # -0 stays what it is.
    return emit(op.where(emit(op.equal(x, zero)), x, emit(op.add(emit(op.log(total)), rest))))


ARITHMETIC: dict[str, Any] = {
    "add.Tensor": _scaled(relax.op.add, operator.add),
    "sub.Tensor": _scaled(relax.op.subtract, operator.sub),
    "clamp.default": _clamp,
    "clamp.Tensor": _clamp,
    "clamp_min.default": _bound(relax.op.maximum),
    "clamp_min.Tensor": _bound(relax.op.maximum),
    "clamp_max.default": _bound(relax.op.minimum),
    "clamp_max.Tensor": _bound(relax.op.minimum),
    "maximum.default": _bound(relax.op.maximum),
    "minimum.default": _bound(relax.op.minimum),
    "where.self": _where,
    "logical_not.default": _logical(relax.op.logical_not),
    "logical_and.default": _logical(relax.op.logical_and),
    "logical_or.default": _logical(relax.op.logical_or),
    "logical_xor.default": _logical(relax.op.logical_xor),
    "remainder.Tensor": _modulus,
    "remainder.Scalar": _modulus,
    "remainder.Scalar_Tensor": _modulus,
    "div.Tensor_mode": _divide,
    "div.Scalar_mode": _divide,
    "floor_divide.default": _divide,
    "elu.default": _elu,
    "celu.default": _celu,
    "expm1.default": lambda node, importer: _expm1(importer, importer.env[node.args[0]]),
    "log1p.default": _log1p,
}
"""Converters by the name of the ATen operator, as ``custom_convert_map`` takes them."""
