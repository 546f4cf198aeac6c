"""Conversions of PyTorch operators that read, write or order elements by their places."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax import op

from edbatch_tvm.errors import CellError
from edbatch_tvm.tvm_compat import tirx

_SAME = {"clone", "alias", "detach", "lift_fresh_copy"}
_COPIES = {"view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "expand", "_to_copy"}


class _Emit:
    """Emits operators into the cell of an importer."""

    def __init__(self, importer: Any) -> None:
        self._importer = importer

    def __call__(self, expression: relax.Expr) -> relax.Var:
        return self._importer.block_builder.emit(expression)

    def value(self, argument: Any, like: Any = None) -> Any:
        """An argument of a node: a number as a constant of the dtype of `like`."""
        if hasattr(argument, "op"):
            return self._importer.env[argument]
        return relax.const(argument, str(like.ty.dtype))

    def cast(self, value: Any, dtype: str) -> Any:
        return value if str(value.ty.dtype) == dtype else self(op.astype(value, dtype))

    def shaped(self, value: Any, shape: Sequence[int]) -> Any:
        return value if _shape(value) == list(shape) else self(op.reshape(value, list(shape)))

    def broadcast(self, value: Any, shape: Sequence[int]) -> Any:
        return value if _shape(value) == list(shape) else self(op.broadcast_to(value, list(shape)))


def _shape(value: Any) -> list[int]:
    """The shape of a value, -1 for what is no number."""
    return [int(extent) if isinstance(extent, tirx.IntImm) else -1 for extent in value.ty.shape.values]


def _argument(node: Any, place: int, name: str, default: Any = None) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


# Indices --------------------------------------------------------------------------------------------------------


INPUT, CONSTANT = "edbatch.input", "edbatch.constant"
"""What :func:`relay_ext.from_torch.import_program` writes to nodes of a graph: inputs of the cell, and constants."""


def _is_attribute(node: Any) -> bool:
    """True for an input of the cell, also reshaped or cast: it is checked before a batch runs."""
    return INPUT in _source(node, _COPIES | _SAME).meta


def _source(node: Any, through: set[str]) -> Any:
    while node.op == "call_function" and str(node.target).split(".")[1] in through:
        node = node.args[0]
    return node


def _wrapped(emit: _Emit, node: Any, extent: int, checked: bool) -> Any:
    """An index as int64 in which negative ones count from the end.

    With `checked` it is read from a table of places, so that what is outside stays outside when indices are joined.
    """
    constant = _source(node, _SAME).meta.get(CONSTANT)
    if constant is not None:
        return relax.const(np.where(constant < 0, constant + extent, constant), "int64")
    index = emit.cast(emit.value(node), "int64")
    if not _is_attribute(node):
        zero, length = relax.const(0, "int64"), relax.const(extent, "int64")
        index = emit(op.where(emit(op.less(index, zero)), emit(op.add(index, length)), index))
    if not checked:
        return index
    return emit(op.take(relax.const(np.arange(extent), "int64"), index, axis=0, mode="fast"))


class _Places:
    """What ``x[i, :, j]`` reads or writes: rows of `x` with the indexed dimensions first and as one."""

    def __init__(self, emit: _Emit, source: Any, indices: Mapping[int, Any]) -> None:
        self.emit, shape = emit, _shape(source)
        first, rest = list(indices), [at for at in range(len(shape)) if at not in indices]
        self.order = first + rest
        self.moved = [shape[at] for at in self.order]
        extents = [shape[at] for at in first]
        joined: Any = None
        for node, extent in zip(indices.values(), extents, strict=True):
            index = _wrapped(emit, node, extent, checked=len(first) > 1)
            if joined is not None:
                index = emit(op.add(emit(op.multiply(joined, relax.const(extent, "int64"))), index))
            joined = index
        self.index = joined
        self.rows, self.size = math.prod(extents), math.prod(shape[at] for at in rest)
        found, tail = _shape(joined), [shape[at] for at in rest]
        before = first[0] if first == list(range(first[0], first[-1] + 1)) else 0
        self.result = [*tail[:before], *found, *tail[before:]]
        rank, count = len(found), len(found) + len(tail)
        self.back = [*range(rank, rank + before), *range(rank), *range(rank + before, count)]
        self.found, self.tail = found, tail

    def table(self, source: Any) -> Any:
        """`source` as a matrix of rows."""
        moved = source if self.order == sorted(self.order) else self.emit(op.permute_dims(source, self.order))
        return self.emit.shaped(moved, [self.rows, self.size])

    def read(self, source: Any) -> Any:
        """The elements, in PyTorch's order of dimensions."""
        rows = self.emit(op.take(self.table(source), self.index, axis=0, mode="fast"))
        rows = self.emit.shaped(rows, [*self.found, *self.tail])
        return rows if self.back == sorted(self.back) else self.emit(op.permute_dims(rows, self.back))

    def write(self, source: Any, values: Any, reduction: str) -> Any:
        """`source` with `values` at the places."""
        values = self.emit.broadcast(values, self.result)
        inverse = [self.back.index(at) for at in range(len(self.back))]
        values = values if inverse == sorted(inverse) else self.emit(op.permute_dims(values, inverse))
        count = math.prod(self.found)
        values = self.emit.shaped(values, [count, self.size])
        index = self.emit.broadcast(self.emit.shaped(self.index, [count, 1]), [count, self.size])
        written = self.emit(op.scatter_elements(self.table(source), index, values, 0, reduction))
        moved = self.emit.shaped(written, self.moved)
        if self.order == sorted(self.order):
            return moved
        return self.emit(op.permute_dims(moved, [self.order.index(at) for at in range(len(self.order))]))


def _indices(node: Any, importer: Any) -> dict[int, Any]:
    indices = {at: one for at, one in enumerate(node.args[1]) if one is not None}
    if any(str(importer.env[one].ty.dtype) == "bool" for one in indices.values()):
        raise CellError(
            "an index that is a mask", "indices", "use torch.where: the shape of a selection depends on values"
        )
    return indices


def _fixed(source: Any, *others: Any) -> bool:
    return all(-1 not in _shape(one) for one in (source, *others))


def _index(node: Any, importer: Any) -> Any:
    """``x[i, :, j]``."""
    emit, source = _Emit(importer), importer.env[node.args[0]]
    indices = _indices(node, importer)
    if len(indices) == 1:
        ((axis, one),) = indices.items()
        index = emit.value(one) if _is_attribute(one) else _wrapped(emit, one, _shape(source)[axis], checked=False)
        return emit(op.take(source, index, axis=axis))
    if not _fixed(source, *(importer.env[one] for one in indices.values())):
        raise CellError("several indices into variadic rows", "one index")
    return _Places(emit, source, indices).read(source)


def _index_put(node: Any, importer: Any) -> Any:
    """``x[i, :, j] = values``, and with ``accumulate`` ``+=``; of a mask, a number."""
    emit, source = _Emit(importer), importer.env[node.args[0]]
    values = emit.cast(importer.env[node.args[2]], str(source.ty.dtype))
    accumulate = bool(_argument(node, 3, "accumulate", False))
    given = [one for one in node.args[1] if one is not None]
    mask = importer.env[given[0]]
    if len(node.args[1]) == 1 and str(mask.ty.dtype) == "bool" and math.prod(_shape(values)) == 1:
        shape = _shape(source)
        wide = emit.broadcast(emit.shaped(mask, [*_shape(mask), *[1] * (len(shape) - len(_shape(mask)))]), shape)
        values = emit.broadcast(emit.shaped(values, []), shape)
        return emit(op.where(wide, emit(op.add(source, values)) if accumulate else values, source))
    indices = _indices(node, importer)
    if not _fixed(source, values, *(importer.env[one] for one in indices.values())):
        raise CellError("writing to variadic rows at an index", "a tensor of fixed shape")
    return _Places(emit, source, indices).write(source, values, "add" if accumulate else "update")


def _gather(node: Any, importer: Any) -> relax.Var:
    """``x.gather(dim, index)``, of numbers and with indices of any integer dtype too."""
    emit = _Emit(importer)
    source, dim, index = importer.env[node.args[0]], node.args[1], emit.cast(importer.env[node.args[2]], "int64")
    if source.ty.ndim and index.ty.ndim:
        return emit(op.gather_elements(source, index, dim))
    shape = _shape(index)
    source, index = (emit.shaped(one, [math.prod(_shape(one))]) for one in (source, index))
    return emit.shaped(emit(op.gather_elements(source, index, 0)), shape)


# Scatter --------------------------------------------------------------------------------------------------------


def _scattered(emit: _Emit, source: Any, dim: int, index: Any, updates: Any, how: str) -> Any:
    """``scatter`` of tensors of any shapes that PyTorch takes."""
    shape = _shape(source)
    if not shape:
        source, index = emit.shaped(source, [1]), emit.shaped(index, [1])
        updates = emit.shaped(updates, [1])
    elif not _shape(index):
        index, updates = emit.shaped(index, [1]), emit.shaped(updates, [1])
    if not _fixed(source, index, updates):
        raise CellError("scatter over variadic rows", "tensors of fixed shapes")
    sizes = _shape(index)
    if _shape(updates) != sizes:
        axes = list(range(len(sizes)))
        updates = emit(op.strided_slice(updates, axes, [0] * len(sizes), sizes))
    dim = dim % source.ty.ndim
    return emit.shaped(emit(op.scatter_elements(source, index, updates, dim, how)), shape)


_REDUCTION = {"add": "add", "sum": "add", "multiply": "mul", "prod": "mul", "amax": "max", "amin": "min", "mean": "add"}


def _scatter(node: Any, importer: Any) -> Any:
    """``scatter``, ``scatter_add`` and ``scatter`` with ``reduce``, of a tensor or a number."""
    emit = _Emit(importer)
    source, dim, index = importer.env[node.args[0]], node.args[1], emit.cast(importer.env[node.args[2]], "int64")
    given = _argument(node, 3, "src", node.kwargs.get("value"))
    updates = emit.value(given, source)
    if not hasattr(given, "op"):
        updates = emit.broadcast(updates, _shape(index))
    reduce = "add" if "scatter_add" in str(node.target) else node.kwargs.get("reduce")
    how = "update" if reduce is None else _REDUCTION[reduce]
    return _scattered(emit, source, dim, index, updates, how)


def _scatter_reduce(node: Any, importer: Any) -> Any:
    """``scatter_reduce``, with the element that was there or without."""
    emit = _Emit(importer)
    source, dim, index = importer.env[node.args[0]], node.args[1], emit.cast(importer.env[node.args[2]], "int64")
    updates, reduce = importer.env[node.args[3]], node.args[4]
    include = bool(_argument(node, 5, "include_self", True))
    dtype = str(source.ty.dtype)
    if not dtype.startswith("float") and (reduce == "mean" or not include):
        raise CellError(f"scatter_reduce of {dtype}", "float32")
    zeros = emit(op.zeros(_shape(source), dtype))
    hits = _scattered(emit, zeros, dim, index, emit(op.ones(_shape(updates), dtype)), "add")
    hit = emit(op.greater(hits, relax.const(0, dtype)))
    start = source
    if not include:
        neutral = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "amax": -math.inf, "amin": math.inf}[reduce]
        start = emit(op.where(hit, emit(op.full(_shape(source), relax.const(neutral, dtype), dtype)), source))
    found = _scattered(emit, start, dim, index, updates, _REDUCTION[reduce])
    if reduce != "mean":
        return found
    count = emit(op.add(hits, relax.const(1.0, dtype))) if include else hits
    return emit(op.where(hit, emit(op.divide(found, count)), source))


def _masked_scatter(node: Any, importer: Any) -> Any:
    """``x.masked_scatter(mask, source)``: the elements of `source` in order where `mask` is true."""
    emit = _Emit(importer)
    target, mask, source = (importer.env[one] for one in node.args)
    sizes = [int(size) for size in node.meta["val"].shape]
    count = math.prod(sizes)
    mask = emit.shaped(emit.broadcast(mask, sizes), [count])
    number = emit(op.cumsum(emit.cast(mask, "int64"), 0, "int64"))
    place = emit(op.subtract(number, relax.const(1, "int64")))
    source = emit.shaped(source, [math.prod(_shape(source))])
    # Where nothing was taken yet, the place is -1 and what it reads is not used.
    place = emit(op.maximum(place, relax.const(0, "int64")))
    taken = emit(op.take(source, place, axis=0, mode="fast"))
    flat = emit.shaped(emit.broadcast(target, sizes), [count])
    return emit.shaped(emit(op.where(mask, taken, flat)), sizes)


def _as_strided(node: Any, importer: Any) -> Any:
    """``x.as_strided(size, stride, offset)`` of a tensor that lies in memory as its shape says."""
    emit, source = _Emit(importer), importer.env[node.args[0]]
    size, stride, offset = node.args[1], node.args[2], _argument(node, 3, "storage_offset", None) or 0
    if not node.args[0].meta["val"].is_contiguous():
        raise CellError("as_strided of a tensor that is not contiguous", "one that is")
    places = np.full([int(one) for one in size], int(offset), dtype="int64")
    for dim, step in enumerate(stride):
        shape = [-1 if at == dim else 1 for at in range(len(size))]
        places = places + int(step) * np.arange(int(size[dim]), dtype="int64").reshape(shape)
    count = math.prod(_shape(source))
    if places.size and int(places.max()) >= count:
        raise CellError("as_strided that reads memory behind its tensor", "places inside it")
    return emit(op.take(emit.shaped(source, [count]), relax.const(places, "int64"), axis=0, mode="fast"))


# Order ----------------------------------------------------------------------------------------------------------


def _sorted(emit: _Emit, source: Any, dim: int, descending: bool) -> tuple[Any, Any]:
    if not source.ty.ndim:
        return source, emit(op.zeros((), "int64"))
    order = emit(op.argsort(source, dim, descending, dtype="int64"))
    return emit(op.gather_elements(source, order, dim % source.ty.ndim)), order


def _sort(node: Any, importer: Any) -> Any:
    """``x.sort(dim, descending)``; equal elements stay in order."""
    stable = "stable" in str(node.target)
    if stable:
        dim, descending = node.kwargs.get("dim", -1), node.kwargs.get("descending", False)
        dim, descending = _argument(node, 2, "dim", dim), _argument(node, 3, "descending", descending)
    else:
        dim, descending = _argument(node, 1, "dim", -1), _argument(node, 2, "descending", False)
    return _sorted(_Emit(importer), importer.env[node.args[0]], dim, descending)


def _topk(node: Any, importer: Any) -> Any:
    """``x.topk(k, dim, largest)``, sorted; of equal elements the first ones."""
    emit, source = _Emit(importer), importer.env[node.args[0]]
    count, dim = node.args[1], _argument(node, 2, "dim", -1)
    found = _sorted(emit, source, dim, bool(_argument(node, 3, "largest", True)))
    if not source.ty.ndim:
        return found
    axis = dim % source.ty.ndim
    first, order = (emit(op.strided_slice(one, [axis], [0], [count])) for one in found)
    return first, order


def _median(node: Any, importer: Any) -> Any:
    """``x.median()`` and ``x.median(dim)``: the lower one of two; NaN if there is one."""
    emit, source = _Emit(importer), importer.env[node.args[0]]
    everything = "default" in str(node.target)
    keep = bool(_argument(node, 2, "keepdim", False))
    if not source.ty.ndim:
        return source if everything else (source, emit(op.zeros((), "int64")))
    shape = _shape(source)
    if everything:
        source = emit.shaped(source, [math.prod(shape)])
    axis = 0 if everything else node.args[1] % source.ty.ndim
    count = _shape(source)[axis]
    values, order = _sorted(emit, source, axis, False)
    middle = relax.const((count - 1) // 2, "int64")
    if str(source.ty.dtype).startswith("float"):
        missing = emit(op.sum(emit(op.astype(emit(op.isnan(source)), "int64")), [axis], True))
        first = emit(op.subtract(relax.const(count, "int64"), missing))
        place = emit(op.where(emit(op.greater(missing, relax.const(0, "int64"))), first, middle))
    else:
        place = emit(op.full([1 if at == axis else size for at, size in enumerate(shape)], middle, "int64"))
    value, at = (emit(op.gather_elements(one, place, axis)) for one in (values, order))
    if everything:
        return emit.shaped(value, [])
    if not keep:
        value, at = emit(op.squeeze(value, [axis])), emit(op.squeeze(at, [axis]))
    return value, at


def _accumulated(build: Any) -> Any:
    """``x.cumsum(dim)`` and ``x.cumprod(dim)``, integers as int64."""

    def convert(node: Any, importer: Any) -> Any:
        emit, source = _Emit(importer), importer.env[node.args[0]]
        dtype = node.kwargs.get("dtype")
        name = str(dtype).removeprefix("torch.") if dtype is not None else str(source.ty.dtype)
        if dtype is None and not name.startswith("float"):
            name = "int64"
        source = emit.cast(source, name)
        return emit(build(source, node.args[1] % source.ty.ndim, name)) if source.ty.ndim else source

    return convert


def _split(node: Any, importer: Any) -> Any:
    """``x.split(size, dim)`` and ``x.split(sizes, dim)``, into one part too."""
    emit, source = _Emit(importer), importer.env[node.args[0]]
    axis = _argument(node, 2, "dim", 0) % source.ty.ndim
    extent, sizes = _shape(source)[axis], node.args[1]
    if isinstance(sizes, int):
        ends = list(range(sizes, extent, sizes)) if sizes else []
    else:
        ends = [int(end) for end in np.cumsum(sizes)[:-1]]
    return emit(op.split(source, ends, axis)) if ends else [source]


INDEXING: dict[str, Any] = {
    "gather.default": _gather,
    "index.Tensor": _index,
    "index_put.default": _index_put,
    "index_put_.default": _index_put,
    "_unsafe_index_put.default": _index_put,
    "scatter.src": _scatter,
    "scatter.value": _scatter,
    "scatter.reduce": _scatter,
    "scatter.value_reduce": _scatter,
    "scatter_add.default": _scatter,
    "scatter_reduce.two": _scatter_reduce,
    "masked_scatter.default": _masked_scatter,
    "as_strided.default": _as_strided,
    "sort.default": _sort,
    "sort.stable": _sort,
    "topk.default": _topk,
    "median.default": _median,
    "median.dim": _median,
    "cumsum.default": _accumulated(op.cumsum),
    "cumprod.default": _accumulated(op.cumprod),
    "split.Tensor": _split,
    "split_with_sizes.default": _split,
}
"""By operator."""
