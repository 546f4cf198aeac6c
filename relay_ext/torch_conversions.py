"""PyTorch operators that TVM's importer of exported programs converts in another way, wrongly or not at all."""

from __future__ import annotations

import operator
from typing import Any

from tvm import relax, tirx

from edbatch_tvm.errors import CellError


def _repeat(node: Any, importer: Any) -> relax.Var:
    """``x.repeat(times)``; TVM's own conversion refuses a symbolic number of times.

    A dimension of 1 that is repeated is a broadcast, which needs no copy.
    """
    emit = importer.block_builder.emit
    source = importer.env[node.args[0]]
    times = [importer.env[count] if hasattr(count, "op") else count for count in node.args[1]]
    extents = [1] * (len(times) - source.ty.ndim) + list(source.ty.shape.values)
    source = emit(relax.op.reshape(source, extents)) if len(extents) > source.ty.ndim else source
    if all(
        (isinstance(count, int) and count == 1) or _is_one(extent) for count, extent in zip(times, extents, strict=True)
    ):
        shape = [count if _is_one(extent) else extent for count, extent in zip(times, extents, strict=True)]
        return emit(relax.op.broadcast_to(source, shape))
    return emit(relax.op.tile(source, times))


def _scalar(node: Any, importer: Any) -> relax.Var:
    """``x.item()`` of an integer tensor: the tensor itself, for those that take one in place of a number."""
    return importer.env[node.args[0]]


def _select(node: Any, importer: Any) -> relax.Var:
    """``x[i]`` along one dimension, where i may be an attribute."""
    source, dim, index = node.args[0], node.args[1], node.args[2]
    if not hasattr(index, "op"):
        return importer._select(node)
    axis = dim % importer.env[source].ty.ndim
    return importer.block_builder.emit(relax.op.take(importer.env[source], importer.env[index], axis=axis))


def _largest(node: Any, importer: Any) -> Any:
    """``x.max(dim)`` of which nobody wants the indices: a reduction, where TVM's importer sorts."""
    if any(user.args[1] == 1 and user.users for user in node.users):
        raise CellError("the indices of max(dim)", "its values", "take argmax outside the cell")
    keep = node.args[2] if len(node.args) > 2 else False
    return importer.block_builder.emit(relax.op.max(importer.env[node.args[0]], [node.args[1]], keep)), None


def _extreme(build: Any) -> Any:
    """``x.amax(dim)`` and ``x.amin(dim)``."""

    def convert(node: Any, importer: Any) -> relax.Var:
        source, *rest = node.args
        dims = list(rest[0]) if rest else []
        keep = rest[1] if rest[1:] else False
        return importer.block_builder.emit(build(importer.env[source], dims or None, keep))

    return convert


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


def _is_one(extent: Any) -> bool:
    return isinstance(extent, int | tirx.IntImm) and int(extent) == 1


CONVERSIONS: dict[str, Any] = {
    "add.Tensor": _scaled(relax.op.add, operator.add),
    "sub.Tensor": _scaled(relax.op.subtract, operator.sub),
    "amax.default": _extreme(relax.op.max),
    "amin.default": _extreme(relax.op.min),
    "repeat.default": _repeat,
    "_local_scalar_dense.default": _scalar,
    "select.int": _select,
    "max.dim": _largest,
}
"""Operators that TVM's importer converts in another way, or not at all."""
