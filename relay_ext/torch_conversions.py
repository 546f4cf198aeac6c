"""PyTorch operators that TVM's importer of exported programs converts in another way, wrongly or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from edbatch_tvm.errors import CellError
from edbatch_tvm.tvm_compat import tirx
from relay_ext.sort_ops import has_exact_places
from relay_ext.torch_arithmetic import ARITHMETIC
from relay_ext.torch_indexing import INDEXING
from relay_ext.torch_products import PRODUCTS


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


def _extreme_with_index(build: Any, index: Any) -> Any:
    """``x.max(dim)`` and ``x.min(dim)``: a reduction and, where it is used, the index of the first such element.

    NaN counts as the largest and as the smallest.
    """

    def convert(node: Any, importer: Any) -> Any:
        emit = importer.block_builder.emit
        source, dim = importer.env[node.args[0]], node.args[1] if node.args[1:] else node.kwargs["dim"]
        keep = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
        if source.ty.ndim == 0:
            return source, emit(relax.op.zeros((), "int64"))
        values = emit(build(source, [dim], keep))
        if not any(user.args[1] == 1 and user.users for user in node.users):
            return values, None
        return values, _place(importer, source, dim, keep, index)

    return convert


def _place(importer: Any, source: Any, dim: int | None, keep: bool, index: Any) -> Any:
    """Where the first NaN is, else the extreme element; infinities count, which TVM's reduction begins with."""
    emit = importer.block_builder.emit
    if not str(source.ty.dtype).startswith("float"):
        return emit(index(source, dim, keep))
    dim = 0 if dim is None and source.ty.ndim == 1 else dim
    if has_exact_places(source.ty, dim):
        return emit(index(source, dim, keep))
    build = relax.op.max if index is relax.op.argmax else relax.op.min
    best = emit(build(source, None if dim is None else [dim], True))
    hit = emit(relax.op.logical_or(emit(relax.op.equal(source, best)), emit(relax.op.isnan(source))))
    missing = emit(relax.op.logical_not(emit(relax.op.isnan(source))))
    # First among NaN (2), then the extreme (1), then the rest (0).
    rank = emit(
        relax.op.add(
            emit(relax.op.astype(hit, "int32")), emit(relax.op.astype(emit(relax.op.logical_not(missing)), "int32"))
        )
    )
    return emit(relax.op.argmax(rank, dim, keep))


def _index_of(index: Any) -> Any:
    """``x.argmax(dim)`` and ``x.argmin(dim)``."""

    def convert(node: Any, importer: Any) -> relax.Var:
        source = importer.env[node.args[0]]
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        keep = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
        if source.ty.ndim == 0:
            return importer.block_builder.emit(relax.op.zeros((), "int64"))
        return _place(importer, source, dim, keep, index)

    return convert


def _extreme(build: Any) -> Any:
    """``x.amax(dim)`` and ``x.amin(dim)``."""

    def convert(node: Any, importer: Any) -> relax.Var:
        source, *rest = node.args
        dims = list(rest[0]) if rest else []
        keep = rest[1] if rest[1:] else False
        source = importer.env[source]
        return source if source.ty.ndim == 0 else importer.block_builder.emit(build(source, dims or None, keep))

    return convert


def _softmax(build: Any) -> Any:
    """``softmax`` and ``log_softmax``, of a number too."""

    def convert(node: Any, importer: Any) -> relax.Var:
        emit = importer.block_builder.emit
        source, dim = importer.env[node.args[0]], node.args[1]
        dtype = node.args[2] if len(node.args) > 2 else None
        if dtype is not None and not isinstance(dtype, bool):
            source = emit(relax.op.astype(source, str(dtype).removeprefix("torch.")))
        if source.ty.ndim:
            return emit(build(source, dim))
        return emit(relax.op.reshape(emit(build(emit(relax.op.reshape(source, (1,))), 0)), ()))

    return convert


def _variance_and_mean(node: Any, importer: Any) -> Any:
    """``var_mean(x, dim)``."""
    source = importer.env[node.args[0]]
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    keep = node.kwargs.get("keepdim", False)
    emit, op = importer.block_builder.emit, relax.op
    mean = emit(op.mean(source, list(dims) if dims else None, keep))
    if not any(user.args[1] == 1 and user.users for user in node.users) or not source.ty.ndim:
        return importer._var(node), mean
    # PyTorch's running mean is NaN after an infinity, unless that is the last element.
    axes = [dim % source.ty.ndim for dim in dims] if dims else list(range(source.ty.ndim))
    extents = [int(extent) if axis in axes else 1 for axis, extent in enumerate(source.ty.shape.values)]
    last = np.zeros(extents, "bool")
    last[tuple([-1] * len(extents))] = True
    zero = relax.const(0, str(source.ty.dtype))
    none = emit(op.multiply(emit(op.where(relax.const(last, "bool"), zero, source)), zero))
    return importer._var(node), emit(op.add(mean, emit(op.sum(none, axes, keep))))


def _of_number(convert: str) -> Any:
    """A reduction over dimensions, of a number too: PyTorch allows dimension 0 of what has none."""

    def checked(node: Any, importer: Any) -> Any:
        source = importer.env[node.args[0]]
        dtype = node.kwargs.get("dtype")
        if source.ty.ndim or not str(source.ty.dtype).startswith("float") or dtype is not None:
            return getattr(importer, convert)(node)
        return source

    return checked


def _index_select(node: Any, importer: Any) -> Any:
    """``index_select``, of a number too."""
    emit, (source, dim, index) = importer.block_builder.emit, node.args
    source, index = importer.env[source], importer.env[index]
    if source.ty.ndim:
        return emit(relax.op.take(source, index, dim))
    return emit(relax.op.reshape(emit(relax.op.take(emit(relax.op.reshape(source, (1,))), index, 0)), ()))


def _product(node: Any, importer: Any) -> relax.Var:
    """``x.prod(dim)``."""
    keep = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    source = importer.env[node.args[0]]
    dtype = node.kwargs.get("dtype")
    name = str(dtype).removeprefix("torch.") if dtype is not None else str(source.ty.dtype)
    if not name.startswith("float"):
        name = "int64"
    if str(source.ty.dtype) != name:
        source = importer.block_builder.emit(relax.op.astype(source, name))
    dim = node.args[1] if len(node.args) > 1 else None
    axes = None if dim is None or source.ty.ndim == 0 else [dim]
    return importer.block_builder.emit(relax.op.prod(source, axes, keep))


def _any(node: Any, importer: Any) -> relax.Var:
    """``x.any()``, ``x.any(dim)`` and ``x.any(dims)``: everything but 0, NaN included, is true."""
    emit = importer.block_builder.emit
    source = importer.env[node.args[0]]
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    keep = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    if str(source.ty.dtype) != "bool":
        source = emit(relax.op.not_equal(source, relax.const(0, str(source.ty.dtype))))
    axes = [dim] if isinstance(dim, int) else list(dim) if dim else None
    number = emit(relax.op.astype(source, "int32"))
    found = number if source.ty.ndim == 0 else emit(relax.op.max(number, axes, keep))
    # Over no variadic rows the maximum is the least integer, and nothing is true.
    return emit(relax.op.greater(found, relax.const(0, "int32")))


def _squeeze(node: Any, importer: Any) -> relax.Expr:
    """``x.squeeze(dims)``: of the dimensions of 1 alone; TVM's own conversion takes a symbolic one for such."""
    source = importer.env[node.args[0]]
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", range(source.ty.ndim))
    axes = {dim % source.ty.ndim for dim in ([dims] if isinstance(dims, int) else dims) if source.ty.ndim}
    ones = sorted(axis for axis in axes if _is_one(source.ty.shape.values[axis]))
    return importer.block_builder.emit(relax.op.squeeze(source, ones)) if ones else source


def _slice(node: Any, importer: Any) -> relax.Expr:
    """``x[:, begin:end]``; TVM takes no dimension counted from the end beside symbolic ones."""
    if len(node.args) > 1 and node.args[1] < 0:
        node.update_arg(1, node.args[1] + importer.env[node.args[0]].ty.ndim)
    return importer._slice(node)


def _reshape(node: Any, importer: Any) -> relax.Expr:
    """``x.view(shape)``; TVM's own conversion compares symbolic extents as if they were numbers."""
    source, shape = importer.env[node.args[0]], list(importer.retrieve_args(node)[1])
    if all(isinstance(extent, int | tirx.IntImm) for extent in [*shape, *source.ty.shape.values]):
        return importer._reshape(node)
    return importer._emit_torch_reshape(source, shape)


def _average_pool(node: Any, importer: Any) -> relax.Var:
    """``avg_pool2d`` and ``avg_pool3d``; TVM's own conversion forgets the divisor."""
    arguments = [*node.args, *[None] * (7 - len(node.args))]
    if (arguments[6] or node.kwargs.get("divisor_override")) is not None:
        raise CellError("avg_pool with divisor_override", "the mean over the window", "multiply the result instead")
    return (importer._avg_pool2d if "2d" in str(node.target) else importer._avg_pool3d)(node)


def _largest_of_window(convert: Any) -> Any:
    """``max_pool`` whose indices are not used; TVM's importer computes wrong ones."""

    def checked(node: Any, importer: Any) -> Any:
        if any(user.args[1] == 1 and user.users for user in node.users):
            raise CellError("the indices of max_pool", "its values", "pool outside the cell")
        return getattr(importer, convert)(node)

    return checked


def _layer_norm(node: Any, importer: Any) -> Any:
    """``native_layer_norm``; TVM's own conversion gives the norm itself for its statistics."""
    normal = importer._native_layer_norm(node)
    if not any(user.args[1] != 0 and user.users for user in node.users):
        return normal
    emit, op = importer.block_builder.emit, relax.op
    source = importer.env[node.args[0]]
    axes = list(range(source.ty.ndim - len(node.args[1]), source.ty.ndim))
    mean, variance = emit(op.mean(source, axes, True)), emit(op.variance(source, axes, True))
    epsilon, zero = (relax.const(value, str(source.ty.dtype)) for value in (node.args[4], 0))
    # PyTorch's running mean is NaN where the variance is.
    mean = emit(op.add(mean, emit(op.multiply(variance, zero))))
    return normal, mean, emit(op.rsqrt(emit(op.add(variance, epsilon))))


_WRITES = (
    *("copy.", "fill", "select", "slice", "scatter", "as_strided_scatter", "masked_scatter", "masked_fill"),
    *("index_put", "index_copy", "index_fill", "full_like", "zeros_like", "ones_like", "view"),
)
"""What may follow ``empty``: writing it, or asking for its shape."""


def _unwritten(node: Any, importer: Any) -> Any:
    """``empty``: 0 where it is written later; it must not be returned unwritten."""
    if any(not str(user.target).removeprefix("aten.").startswith(_WRITES) for user in node.users):
        raise CellError("memory that nobody wrote", "zeros, ones or full")
    dtype = node.kwargs.get("dtype")
    name = "float32" if dtype is None else str(dtype).removeprefix("torch.")
    return importer.block_builder.emit(relax.op.zeros([int(extent) for extent in node.args[0]], name))


def _cast(convert: str) -> Any:
    """Casts; what TVM makes of bfloat16 keeps more bits than there are."""

    def checked(node: Any, importer: Any) -> Any:
        if "bfloat16" in str((node.args[1:], node.kwargs.get("dtype"))):
            raise CellError("a cast to bfloat16", "float32")
        return getattr(importer, convert)(node)

    return checked


def _refused(what: str, expected: str) -> Any:
    """An operator that TVM's importer converts into something else."""

    def convert(node: Any, importer: Any) -> Any:
        raise CellError(what, expected)

    return convert


def _is_one(extent: Any) -> bool:
    return isinstance(extent, int | tirx.IntImm) and int(extent) == 1


CONVERSIONS: dict[str, Any] = {
    **ARITHMETIC,
    **INDEXING,
    **PRODUCTS,
    "amax.default": _extreme(relax.op.max),
    "amin.default": _extreme(relax.op.min),
    "repeat.default": _repeat,
    "_local_scalar_dense.default": _scalar,
    "select.int": _select,
    "max.dim": _extreme_with_index(relax.op.max, relax.op.argmax),
    "min.dim": _extreme_with_index(relax.op.min, relax.op.argmin),
    "argmax.default": _index_of(relax.op.argmax),
    "argmin.default": _index_of(relax.op.argmin),
    "_softmax.default": _softmax(relax.op.nn.softmax),
    "_log_softmax.default": _softmax(relax.op.nn.log_softmax),
    "var_mean.correction": _variance_and_mean,
    "sum.dim_IntList": _of_number("_sum"),
    "mean.dim": _of_number("_mean"),
    "index_select.default": _index_select,
    "prod.dim_int": _product,
    "prod.default": _product,
    "any.default": _any,
    "any.dim": _any,
    "any.dims": _any,
    "squeeze.default": _squeeze,
    "squeeze.dim": _squeeze,
    "squeeze.dims": _squeeze,
    "slice.Tensor": _slice,
    "view.default": _reshape,
    "reshape.default": _reshape,
    "avg_pool2d.default": _average_pool,
    "avg_pool3d.default": _average_pool,
    "max_pool2d_with_indices.default": _largest_of_window("_max_pool2d_with_indices"),
    "max_pool3d_with_indices.default": _largest_of_window("_max_pool3d_with_indices"),
    "native_layer_norm.default": _layer_norm,
    "empty_permuted.default": _unwritten,
    "empty.memory_format": _unwritten,
    "_to_copy.default": _cast("_to_copy"),
    "_upsample_bilinear2d_aa.default": _refused("bilinear interpolation with antialias", "antialias=False"),
}
"""Operators that TVM's importer converts in another way, or not at all."""
