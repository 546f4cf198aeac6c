"""A function of variadic rows for a fixed number of them: what is computed for every row, row by row.

Stages are made of cells that compute rows. A matrix of all variadic rows would keep a cell out of them. Products of
rows with a weight stay products of a matrix: a stage with one for each row, and all that follows, takes LLVM minutes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tvm import relax
from tvm.relax import op as R

from edbatch_tvm.tvm_compat import Call, TensorType, structural_map, tirx
from relay_ext.gradients.rules import Emitter, dtype_of, number, reduced_axes, short_name
from relay_ext.row_ops import row_form, tensors_of

_MAPPED = frozenset(["astype", "equal", "greater", "greater_equal", "less", "less_equal", "not_equal", "where"])
"""Operators that work element by element, besides those of :mod:`relay_ext.op_table`."""

_COMBINED = {"sum": R.add, "mean": R.add, "max": R.maximum, "min": R.minimum}


class _NoForm(Exception):
    """An operator that has no form for one row."""


def unroll_rows(
    emit: Emitter, bindings: Sequence[tuple[Any, Any]], known: Mapping[Any, Any], rows: int
) -> dict[Any, Any] | None:
    """Emit bindings for a number of variadic rows.

    Parameters
    ----------
    emit : Emitter
    bindings : sequence of (Var, expression)
        Of a function of variadic operands.
    known : mapping
        Its parameters in the function that is being built; a list of the rows for one that has rows.
    rows : int
        One or more.

    Returns
    -------
    dict or None
        Its variables in the function that is being built; lists of rows for those that have rows. None if an operator
        cannot be written for one row.
    """
    try:
        return _unrolled(emit, bindings, known, rows)
    except _NoForm:
        return None


def _unrolled(
    emit: Emitter, bindings: Sequence[tuple[Any, Any]], known: Mapping[Any, Any], rows: int
) -> dict[Any, Any]:
    values = dict(known)

    def renamed(expression: Any, place: int | None = None) -> Any:
        """An expression in the new variables; where `place` is given, of that row."""

        def new(variable: Any) -> Any:
            found = values.get(variable, variable)
            return found[place] if isinstance(found, list) and place is not None else found

        return structural_map(expression, (relax.Var, new))

    def is_rows(expression: Any) -> bool:
        return isinstance(values.get(expression), list) if isinstance(expression, relax.Var) else False

    for variable, value in bindings:
        if isinstance(value, relax.Var):
            values[variable] = values.get(value, value)
        elif isinstance(value, relax.TupleGetItem) and is_rows(value.tuple_value):
            values[variable] = [emit(renamed(value, place)) for place in range(rows)]
        elif isinstance(value, Call) and has_rows(variable):
            values[variable] = _rows(emit, value, renamed, is_rows, rows)
        elif isinstance(value, Call) and any(map(is_rows, value.args)):
            values[variable] = _combined(emit, value, values[value.args[0]])
        elif any(map(is_rows, relax.analysis.free_vars(value))):
            raise _NoForm(str(value))
        else:
            made = renamed(value)
            values[variable] = made if isinstance(made, relax.Tuple) else emit(made)
    return values


def has_rows(variable: Any) -> bool:
    """Whether a value, or the fields of a tuple, have a row for each of the variadic rows."""
    if not isinstance(variable.ty, TensorType):
        return any(isinstance(ty, TensorType) and _is_variadic(ty) for ty in getattr(variable.ty, "fields", ()))
    return _is_variadic(variable.ty)


def _is_variadic(ty: Any) -> bool:
    return ty.ndim > 0 and not isinstance(ty.shape.values[0], tirx.IntImm)


def _rows(emit: Emitter, call: Any, renamed: Any, is_rows: Any, rows: int) -> list[Any]:
    """A call whose result has rows, row by row."""
    name = short_name(call)
    if name in ("full", "zeros", "ones"):
        fill = {"zeros": 0.0, "ones": 1.0}.get(name)
        filled = number(fill, call) if fill is not None else renamed(call.args[1])
        return [emit(R.full(_row_shape(call), filled, dtype_of(call)))] * rows
    if name == "broadcast_to":
        source = call.args[0]
        if not is_rows(source):
            return [_broadcast(emit, renamed(source), call, False)] * rows
        return [_broadcast(emit, renamed(source, place), call, True) for place in range(rows)]
    if name == "matmul":
        raise _NoForm(name)
    tensors = tensors_of(call)
    own = [is_rows(tensor) for tensor in tensors]
    if name in _MAPPED:
        ranks = {tensor.ty.ndim for tensor, one in zip(tensors, own, strict=True) if one}
        others = [tensor.ty.ndim for tensor, one in zip(tensors, own, strict=True) if not one]
        if ranks != {call.ty.ndim} or any(rank >= call.ty.ndim for rank in others):
            raise _NoForm(name)
        arguments = [[renamed(argument, place) for argument in call.args] for place in range(rows)]
        return [emit(relax.Call(call.op, own, call.attrs)) for own in arguments]
    made = []
    for place in range(rows):
        form = row_form(call, own, [renamed(tensor, place) for tensor in tensors])
        if form is None:
            raise _NoForm(name)
        made.append(emit(form))
    return made


def _combined(emit: Emitter, call: Any, parts: Any) -> Any:
    """A reduction whose first axis is that of the rows."""
    name = short_name(call)
    if name not in _COMBINED or not isinstance(parts, list):
        raise _NoForm(name)
    axes = reduced_axes(call)
    if 0 not in axes:
        raise _NoForm(name)
    total = parts[0]
    for part in parts[1:]:
        total = emit(_COMBINED[name](total, part))
    rest = [axis - 1 for axis in axes if axis]
    keepdims = bool(call.attrs.keepdims)
    if rest:
        total = emit(getattr(R, name)(total, axis=rest, keepdims=keepdims))
    if name == "mean":
        total = emit(R.divide(total, number(float(len(parts)), total)))
    return emit(R.expand_dims(total, axis=0)) if keepdims else total


def _broadcast(emit: Emitter, source: Any, call: Any, is_row: bool) -> Any:
    """What is broadcast to rows, for one row."""
    shape = _row_shape(call)
    if not is_row and source.ty.ndim == call.ty.ndim:
        source = emit(R.reshape(source, relax.ShapeExpr(list(source.ty.shape.values)[1:])))
    same = [int(extent) for extent in source.ty.shape.values] == [int(extent) for extent in shape.values]
    return source if same else emit(R.broadcast_to(source, shape))


def _row_shape(call: Any) -> Any:
    return relax.ShapeExpr(list(call.ty.shape.values)[1:])
