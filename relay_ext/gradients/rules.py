"""Rules of differentiation: one function for each operator, and the means to write them.

At ties and kinks a rule gives what PyTorch gives on the CPU: ``relu`` and ``abs`` have gradient 0 at 0, ``maximum``
halves the gradient between equal operands, ``clip`` passes it at its bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm
from tvm import relax
from tvm.relax import op as R

from edbatch_tvm.errors import CellError
from edbatch_tvm.tvm_compat import GenericConst, TensorType, tirx

Gradients = Sequence[Any]
"""For each argument of a call: its gradient, None for none, a list for a tuple."""

Rule = Callable[["Emitter", Any, Any, Any], Gradients]
"""A function of the emitter, the call, its result and the gradient of that (a list if the result is a tuple)."""

RULES: dict[str, Rule] = {}
"""By name of the operator, without ``relax.``."""


class NoGradientError(CellError):
    """An operator that has no gradient, or none in this form."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


class Emitter:
    """Adds bindings to a function that is being built."""

    def __init__(self, builder: relax.BlockBuilder) -> None:
        self.builder = builder

    def __call__(self, expression: Any) -> Any:
        """Bind an expression to a variable, so that its type is known; a variable stays as it is."""
        if isinstance(expression, relax.Var | GenericConst) or expression is None:
            return expression
        return self.builder.emit(expression)

    def full(self, like: Any, value: float) -> Any:
        """A tensor of the shape and dtype of `like`."""
        return self(R.full(like.ty.shape, number(value, like), dtype_of(like)))

    def zeros(self, tensor_type: Any) -> Any:
        """Zeros of a type."""
        return self(R.zeros(tensor_type.shape, str(tensor_type.dtype)))

    def fit(self, gradient: Any, like: Any) -> Any:
        """Sum a gradient over the axes along which `like` was broadcast."""
        gradient = self(gradient)
        have, want = extents(gradient), extents(like)
        lead = len(have) - len(want)
        if lead:
            gradient = self(R.sum(gradient, axis=list(range(lead))))
        axes = [
            axis
            for axis, (a, b) in enumerate(zip(have[lead:], want, strict=True))
            if is_number(b, 1) and not is_number(a, 1)
        ]
        return self(R.sum(gradient, axis=axes, keepdims=True)) if axes else gradient

    def spread(self, gradient: Any, like: Any, axes: Sequence[int], keepdims: bool) -> Any:
        """A gradient of the result of a reduction, at every element that was reduced."""
        if not keepdims:
            gradient = self(R.expand_dims(gradient, list(axes)) if len(axes) else gradient)
        return self(R.broadcast_to(gradient, like.ty.shape))


def extents(expression: Any) -> list[Any]:
    """The extents of a tensor, numbers or symbols."""
    return list(expression.ty.shape.values)


def dtype_of(expression: Any) -> str:
    """The dtype of a tensor."""
    return str(expression.ty.dtype)


def number(value: float, like: Any) -> Any:
    """A constant of the dtype of a tensor."""
    return relax.const(value, dtype_of(like))


def is_number(extent: Any, value: int) -> bool:
    """Whether an extent is known to be a number."""
    return isinstance(extent, tirx.IntImm) and int(extent) == value


def is_float(expression: Any) -> bool:
    """Whether a tensor has a floating-point dtype."""
    return isinstance(expression.ty, TensorType) and dtype_of(expression).startswith(("float", "bfloat"))


def reduced_axes(call: Any) -> list[int]:
    """The axes of a reduction, counted from the first one."""
    ndim, axis = call.args[0].ty.ndim, call.attrs.axis
    if axis is None:
        return list(range(ndim))
    return sorted(int(one) % ndim for one in ([axis] if isinstance(axis, int | tirx.IntImm) else axis))


def short_name(call: Any) -> str:
    """The name of the operator that is called, without ``relax.``."""
    return str(getattr(call.op, "name", call.op)).removeprefix("relax.")


def gradients_of(emit: Emitter, call: Any, result: Any, gradient: Any) -> Gradients:
    """The gradients of the arguments of a call.

    Raises
    ------
    NoGradientError
        If there is no rule for its operator.
    """
    name = short_name(call)
    if name in RULES:
        return RULES[name](emit, call, result, gradient)
    theirs = call.op.get_attr("FPrimalGradient") if isinstance(call.op, tvm.ir.Op) else None
    if theirs is None or isinstance(gradient, list):
        raise NoGradientError(
            f"the gradient of operator {name!r}",
            "an operator that has one",
            "write the cell with other operators, or give a rule with relay_ext.gradients.rules.rule",
        )
    return list(theirs(result, call, emit(gradient), emit.builder))
