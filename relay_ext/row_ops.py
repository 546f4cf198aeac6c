"""Which Relax ops map over the rows of variadic operands, and what they are for one row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax

from edbatch_tvm.tvm_compat import TensorType, tirx
from relay_ext.op_table import ELEMENTWISE

Arguments = Sequence[Any]


def row_form(call: relax.Call, is_rows: Sequence[bool], arguments: Arguments) -> Any | None:
    """`call` for one row, or None if it is not the same function of every row.

    Parameters
    ----------
    call : relax.Call
        Its result has the rows as leading dimension.
    is_rows : sequence of bool
        For each tensor among the arguments (a tuple counts as its fields), whether it has rows too.
    arguments : sequence of expressions
        What the tensors are for one row: without the leading dimension where they have rows.
    """
    name = call.op.name
    tensors = tensors_of(call)
    row_ranks = {tensor.ty.ndim for tensor, rows in zip(tensors, is_rows, strict=True) if rows}
    if name in ELEMENTWISE:
        # Shapes are aligned at their last dimensions: the leading one must stand alone in front.
        static = [tensor.ty.ndim for tensor, rows in zip(tensors, is_rows, strict=True) if not rows]
        if row_ranks == {call.ty.ndim} and all(rank < call.ty.ndim for rank in static):
            return relax.Call(call.op, list(arguments), call.attrs)
        return None
    return FORMS[name](call, is_rows, arguments) if name in FORMS else None


def tensors_of(call: relax.Call) -> list[Any]:
    """The tensors among the arguments of a call, those in tuples too."""
    tensors: list[Any] = []
    for argument in call.args:
        tensors.extend(argument.fields if isinstance(argument, relax.Tuple) else [argument])
    return [tensor for tensor in tensors if isinstance(tensor.ty, TensorType)]


def _matmul(call: relax.Call, is_rows: Sequence[bool], arguments: Arguments) -> Any | None:
    left, right = (tensor.ty.ndim for tensor in tensors_of(call))
    shared_right = is_rows[0] and not is_rows[1] and left >= 2 and right <= 2
    both = all(is_rows) and left == right >= 3
    return relax.Call(call.op, list(arguments), call.attrs) if shared_right or both else None


def _reshape(call: relax.Call, _: Sequence[bool], arguments: Arguments) -> Any | None:
    source, target = call.args[0].ty.shape.values, call.args[1]
    if not isinstance(target, relax.ShapeExpr) or not _same(source[0], target.values[0]):
        return None
    return relax.op.reshape(arguments[0], list(target.values)[1:])


def _along_axis(build: Callable[[relax.Call, Arguments, int], Any]) -> Callable[..., Any | None]:
    """An op along one axis, which must not be that of the rows; it counts one less for one row."""

    def form(call: relax.Call, is_rows: Sequence[bool], arguments: Arguments) -> Any | None:
        if not all(is_rows) or call.attrs.axis is None:
            return None
        axis = int(call.attrs.axis) % tensors_of(call)[0].ty.ndim
        return build(call, arguments, axis - 1) if axis > 0 else None

    return form


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, tirx.Var) and one.same_as(other)


FORMS: dict[str, Callable[..., Any | None]] = {
    "relax.matmul": _matmul,
    "relax.reshape": _reshape,
    "relax.concat": _along_axis(lambda _, arguments, axis: relax.op.concat(list(arguments), axis)),
    "relax.split": _along_axis(
        lambda call, arguments, axis: relax.op.split(arguments[0], _sections(call.attrs.indices_or_sections), axis)
    ),
    "relax.nn.softmax": _along_axis(lambda _, arguments, axis: relax.op.nn.softmax(arguments[0], axis)),
    "relax.nn.log_softmax": _along_axis(lambda _, arguments, axis: relax.op.nn.log_softmax(arguments[0], axis)),
}
"""Of the operators that map rows and are not element-wise."""


def _sections(sections: Any) -> int | list[int]:
    return int(sections) if isinstance(sections, tirx.IntImm) else [int(index) for index in sections]
