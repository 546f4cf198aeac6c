"""Relax functions evaluated with PyTorch, operator by operator: the reference that PyTorch differentiates."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tvm
from tvm import relax, tirx

_UNARY: dict[str, Callable[..., Any]] = {
    name: getattr(torch, name)
    for name in (
        *("abs", "exp", "log", "negative", "sigmoid", "sqrt", "tanh", "cos", "sin", "tan", "cosh", "sinh", "rsqrt"),
        *("square", "erf", "ceil", "floor", "round", "sign", "asin", "acos", "atan", "asinh", "acosh", "atanh"),
        *("logical_not", "trunc"),
    )
} | {
    "nn.relu": F.relu,
    "nn.silu": F.silu,
    "nn.gelu": F.gelu,
    "nn.gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}
_BINARY: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "power": torch.pow,
    "mod": torch.fmod,
    "floor_mod": torch.remainder,
    "equal": torch.eq,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "matmul": torch.matmul,
}


def evaluate(function: Any, arguments: dict[str, Any]) -> list[Any]:
    """The results of a function for arguments by name; floats are computed in float64."""
    frame: dict[Any, Any] = {}
    for param in function.params:
        value = arguments[param.name]
        frame[param] = value
        sizes = zip(param.ty.shape.values, value.shape, strict=True)
        frame |= {extent: size for extent, size in sizes if isinstance(extent, tirx.Var)}
    body = function.body
    if isinstance(body, relax.SeqExpr):
        for block in body.blocks:
            for binding in block.bindings:
                frame[binding.var] = _value(binding.value, frame)
        body = body.body
    result = _value(body, frame)
    return list(result) if isinstance(result, tuple) else [result]


def _value(node: Any, frame: dict[Any, Any]) -> Any:
    if isinstance(node, relax.Tuple):
        return tuple(_value(one, frame) for one in node.fields)
    if isinstance(node, relax.TupleGetItem):
        return _value(node.tuple_value, frame)[int(node.index)]
    if isinstance(node, relax.Call):
        return _call(node, frame)
    if isinstance(node, relax.Var):
        return frame[node]
    if isinstance(node, tirx.IntImm | tirx.FloatImm):
        return torch.tensor(node.value)
    if isinstance(node, tvm.ir.GenericConst):
        found = torch.from_numpy(np.array(node.value.numpy()))
        return found.double() if found.is_floating_point() else found
    if isinstance(node, relax.ShapeExpr):
        return [_extent(one, frame) for one in node.values]
    raise NotImplementedError(type(node))


def _extent(extent: Any, frame: dict[Any, Any]) -> int:
    return frame[extent] if isinstance(extent, tirx.Var) else int(extent)


def _axes(axis: Any, ndim: int) -> list[int]:
    if axis is None:
        return list(range(ndim))
    return [int(one) % ndim for one in ([axis] if isinstance(axis, int | tirx.IntImm) else axis)]


def _integers(node: Any) -> list[int]:
    return [int(one.value) for one in node.fields]


def _call(call: Any, frame: dict[Any, Any]) -> Any:
    name, attrs = call.op.name.removeprefix("relax."), call.attrs
    if name == "strided_slice":
        return _slice(call, frame)
    if name == "clip":
        return torch.clamp(_value(call.args[0], frame), *(float(one.value) for one in call.args[1:3]))
    args = [_value(one, frame) for one in call.args]
    x = args[0] if args else None
    if name in _UNARY:
        return _UNARY[name](x)
    if name in _BINARY:
        return _BINARY[name](*args)
    if name == "where":
        return torch.where(*args)
    if name in ("reshape", "flatten", "squeeze", "expand_dims", "broadcast_to"):
        shape = [_extent(one, frame) for one in call.ty.shape.values]
        return x.broadcast_to(shape) if name == "broadcast_to" else x.reshape(shape)
    if name == "permute_dims":
        return x.permute(_axes(attrs.axes, x.ndim)[:: 1 if attrs.axes is not None else -1])
    if name in ("concat", "stack"):
        return (torch.cat if name == "concat" else torch.stack)(x, int(attrs.axis or 0))
    if name == "split":
        count = attrs.indices_or_sections
        parts = int(count) if isinstance(count, int | tirx.IntImm) else [int(one) for one in count]
        return torch.tensor_split(x, parts, int(attrs.axis))
    if name == "take":
        index = args[1] % x.shape[int(attrs.axis or 0)]
        flat = torch.index_select(x, int(attrs.axis or 0), index.reshape(-1).long())
        return flat.reshape([_extent(one, frame) for one in call.ty.shape.values])
    if name in ("full", "zeros"):
        return torch.full(x, float(args[1]) if name == "full" else 0.0, dtype=torch.float64)
    if name == "astype":
        return x.to(torch.float64 if "float" in str(attrs.dtype) else getattr(torch, str(attrs.dtype)))
    if name in ("sum", "mean", "prod", "max", "min", "variance", "std"):
        return _reduced(name, x, _axes(attrs.axis, x.ndim), bool(attrs.keepdims))
    if name in ("nn.softmax", "nn.log_softmax"):
        return (torch.softmax if name == "nn.softmax" else torch.log_softmax)(x, int(attrs.axis))
    if name == "nn.layer_norm":
        return F.layer_norm(x, args[1].shape, *args[1:], float(attrs.epsilon))
    if name == "nn.rms_norm":
        return F.rms_norm(x, args[1].shape, args[1], float(attrs.epsilon))
    if name == "nn.leakyrelu":
        return F.leaky_relu(x, float(attrs.alpha))
    if name == "nn.softplus":
        return F.softplus(x, float(attrs.beta), float(attrs.threshold))
    if name == "cumsum":
        return torch.cumsum(x, int(attrs.axis))
    if name == "flip":
        return torch.flip(x, [int(attrs.axis)])
    if name == "repeat":
        return torch.repeat_interleave(x, int(attrs.repeats), None if attrs.axis is None else int(attrs.axis))
    if name == "tile":
        return torch.tile(x, [int(one) for one in attrs.repeats])
    if name in ("triu", "tril"):
        return getattr(torch, name)(x, int(call.args[1].value) if len(args) > 1 else 0)
    raise NotImplementedError(name)


def _slice(call: Any, frame: dict[Any, Any]) -> Any:
    x = _value(call.args[0], frame)
    axes, begins, ends = (_integers(one) for one in call.args[1:4])
    strides = _integers(call.args[4]) if len(call.args) > 4 else [1] * len(axes)
    for axis, begin, end, stride in zip(axes, begins, ends, strides, strict=True):
        extent = x.shape[axis]
        places = range(extent)[slice(begin, None if stride < 0 and end < -extent else end, stride)]
        x = torch.index_select(x, axis % x.ndim, torch.tensor(list(places), dtype=torch.int64))
    return x


def _reduced(name: str, x: Any, axes: list[int], keepdims: bool) -> Any:
    if name == "prod":
        for axis in sorted(axes, reverse=True):
            x = torch.prod(x, axis, keepdim=keepdims)
        return x
    if name in ("variance", "std"):
        return (torch.var if name == "variance" else torch.std)(x, axes, correction=0, keepdim=keepdims)
    return {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin}[name](x, axes, keepdim=keepdims)
