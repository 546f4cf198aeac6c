"""What operators over variadic rows are for one row: adjoints compute the rows of a minibatch as nodes of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax
from tvm.relax import op as R

from edbatch_tvm.tvm_compat import Call, TensorType
from relay_ext.gradients.rules import Emitter, dtype_of, is_number, number, reduced_axes, short_name
from relay_ext.op_table import OPS, OpKind
from relay_ext.row_ops import row_form, tensors_of

_ELEMENTWISE = frozenset(
    [op.name for op in OPS.values() if op.kind is OpKind.ELEMENTWISE]
    + [*("acos", "acosh", "asin", "asinh", "atan", "atanh", "cosh", "nn.softplus", "sinh", "tan", "trunc")]
    + [*("equal", "greater", "greater_equal", "isfinite", "isinf", "isnan", "less", "less_equal", "not_equal")]
    + [*("astype", "logical_and", "logical_not", "logical_or", "where")]
)
"""Operators that work element by element; constants and rows of a node may be among what they read."""

_REDUCED = frozenset(["max", "mean", "min", "prod", "std", "sum", "variance"])


class NoRowForm(Exception):
    """An operator that is not the same function of every row."""


def one_row(emit: Emitter, call: Any, own: Sequence[bool], rows: Sequence[Any]) -> Any:
    """A call whose result has variadic rows, for one of them.

    Parameters
    ----------
    emit : Emitter
    call : Call
    own : sequence of bool
        For each tensor among the arguments (a tuple counts as its fields) whether it has variadic rows too.
    rows : sequence of expressions
        The tensors, those that have rows for one row.

    Raises
    ------
    NoRowForm
        If one row of the result depends on others, or there is no form for one.
    """
    name = short_name(call)
    if name in ("full", "zeros", "ones"):
        fill = call.args[1] if name == "full" else number({"zeros": 0.0, "ones": 1.0}[name], call)
        return emit(R.full(row_shape(call), fill, dtype_of(call)))
    if name == "broadcast_to":
        return spread_row(emit, call, rows[0], own[0])
    if name in _ELEMENTWISE:
        given = iter(_aligned(emit, call, own, rows))
        arguments = [next(given) if isinstance(one.ty, TensorType) else one for one in call.args]
        return emit(Call(call.op, arguments, call.attrs))
    if name in _AXES and all(own):
        return emit(_AXES[name](call, rows))
    form = row_form(call, own, rows)
    if form is None:
        raise NoRowForm(name)
    return emit(form)


def row_shape(variable: Any) -> Any:
    """The shape of one of the rows of a value."""
    return relax.ShapeExpr(list(variable.ty.shape.values)[1:])


def spread_row(emit: Emitter, call: Any, source: Any, is_row: bool) -> Any:
    """What a call of ``broadcast_to`` gives every row."""
    shape = row_shape(call)
    if not is_row and source.ty.ndim == call.ty.ndim:
        source = emit(R.reshape(source, relax.ShapeExpr(list(source.ty.shape.values)[1:])))
    same = [int(extent) for extent in source.ty.shape.values] == [int(extent) for extent in shape.values]
    return source if same else emit(R.broadcast_to(source, shape))


def _aligned(emit: Emitter, call: Any, own: Sequence[bool], rows: Sequence[Any]) -> list[Any]:
    """Tensors for one row, whose last dimensions are those that they had."""
    found = []
    for tensor, is_row, row in zip(tensors_of(call), own, rows, strict=True):
        if is_row and tensor.ty.ndim < call.ty.ndim:
            raise NoRowForm(short_name(call))
        if not is_row and tensor.ty.ndim == call.ty.ndim:  # one for all rows
            row = emit(R.reshape(row, relax.ShapeExpr(list(tensor.ty.shape.values)[1:])))
        found.append(row)
    return found


def _inner(call: Any, axes: Sequence[int]) -> list[int]:
    """Axes of a tensor, for one row of it."""
    if any(axis == 0 for axis in axes):
        raise NoRowForm(short_name(call))
    return [axis - 1 for axis in axes]


def _reduction(call: Any, rows: Sequence[Any]) -> Any:
    axes = _inner(call, reduced_axes(call))
    return getattr(R, short_name(call))(rows[0], axis=axes, keepdims=bool(call.attrs.keepdims))


def _expand_dims(call: Any, rows: Sequence[Any]) -> Any:
    return R.expand_dims(rows[0], _inner(call, [int(axis) % call.ty.ndim for axis in call.attrs.axis]))


def _squeeze(call: Any, rows: Sequence[Any]) -> Any:
    ndim = call.args[0].ty.ndim
    if call.attrs.axis is None:
        extents = list(call.args[0].ty.shape.values)[1:]
        return R.squeeze(rows[0], [axis for axis, extent in enumerate(extents) if is_number(extent, 1)])
    return R.squeeze(rows[0], _inner(call, [int(axis) % ndim for axis in call.attrs.axis]))


def _permute_dims(call: Any, rows: Sequence[Any]) -> Any:
    ndim = call.ty.ndim
    axes = [int(axis) % ndim for axis in call.attrs.axes] if call.attrs.axes is not None else [*range(ndim)][::-1]
    if axes[0] != 0:
        raise NoRowForm("permute_dims")
    return R.permute_dims(rows[0], [axis - 1 for axis in axes[1:]])


def _strided_slice(call: Any, rows: Sequence[Any]) -> Any:
    axes = call.args[1]
    numbers = [int(one.value) for one in (axes.fields if isinstance(axes, relax.Tuple) else axes.values)]
    inner = _inner(call, [axis % call.ty.ndim for axis in numbers])
    return R.strided_slice(rows[0], inner, *call.args[2:])


def _one_axis(build: Callable[[Any, Any, int], Any]) -> Callable[[Any, Sequence[Any]], Any]:
    """An operator with one axis, an attribute."""

    def form(call: Any, rows: Sequence[Any]) -> Any:
        if call.attrs.axis is None:
            raise NoRowForm(short_name(call))
        (axis,) = _inner(call, [int(call.attrs.axis) % call.args[0].ty.ndim])
        return build(call, rows, axis)

    return form


_AXES: dict[str, Callable[[Any, Sequence[Any]], Any]] = {
    **dict.fromkeys(_REDUCED, _reduction),
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "permute_dims": _permute_dims,
    "strided_slice": _strided_slice,
    "flip": _one_axis(lambda call, rows, axis: R.flip(rows[0], axis)),
    "cumsum": _one_axis(lambda call, rows, axis: R.cumsum(rows[0], axis)),
    "repeat": _one_axis(lambda call, rows, axis: R.repeat(rows[0], int(call.attrs.repeats), axis)),
}
"""Operators along axes other than that of the rows, which count one less for one row."""
