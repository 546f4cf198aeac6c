"""Pass: every operator of a cell becomes a TIR function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import IRModule, relax, te, topi

from edbatch_tvm.errors import CellError
from edbatch_tvm.tvm_compat import GenericConst, TensorType, tirx
from relay_ext.boolean_ops import TRUTH_RULES
from relay_ext.call_tvm_rule import tvm_rule
from relay_ext.row_sums import SUM_RULES
from relay_ext.signature import cell_functions
from relay_ext.sort_ops import ORDER_RULES
from relay_ext.strict_floats import hidden
from relay_ext.window_ops import WINDOW_RULES

_ALLOWED = {"relax.call_tir", "relax.call_tir_with_grad"}


@tvm.transform.module_pass(opt_level=0, name="LegalizeCells")
class LegalizeCells:
    """Lower the operators of every cell to ``R.call_tir``, with TVM's own legalization.

    Before::

        g = R.matmul(x, W)

    After::

        g = R.call_tir(cls.matmul, (x, W), out_ty=R.Tensor((256,), "float32"))

    ``R.take`` gets a rule of its own: TVM's prints a warning about indices out of range, which the runtime checks
    before a batch is run. So do operators on truth values (:mod:`relay_ext.boolean_ops`), those that sum long rows
    (:mod:`relay_ext.row_sums`), those that order, accumulate or scatter elements (:mod:`relay_ext.sort_ops`) and
    windows (:mod:`relay_ext.window_ops`).

    Raises
    ------
    CellError
        Naming the first operator that has no TIR form and therefore cannot be batched.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        mod = relax.transform.DecomposeOpsForInference()(mod)
        rules = {"relax.take": _legalize_take, **TRUTH_RULES, **_ARITHMETIC, **SUM_RULES, **ORDER_RULES, **WINDOW_RULES}
        mod = relax.transform.LegalizeOps(rules)(mod)
        mod = relax.transform.CanonicalizeBindings()(mod)
        for name, function in cell_functions(mod).items():
            relax.analysis.post_order_visit(function.body, lambda node, cell=name: _check_lowered(cell, node))
        return mod


def _check_lowered(cell: str, node: Any) -> None:
    if isinstance(node, relax.Call) and isinstance(node.op, tvm.ir.Op) and node.op.name not in _ALLOWED:
        raise CellError(
            f"operator {node.op.name!r} in cell {cell!r} cannot be batched",
            "an operator with a TIR form",
            "write it as a TIR function and call it with R.call_tir",
        )


def _legalize_take(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    table, index = call.args
    axis = call.attrs.axis
    if call.attrs.mode != "fast" or axis is None or not isinstance(index.ty, TensorType):
        return tvm_rule(builder, call)
    axis = int(axis) % table.ty.ndim
    count = index.ty.ndim

    def take(table: te.Tensor, index: te.Tensor) -> te.Tensor:
        shape = [*table.shape[:axis], *index.shape, *table.shape[axis + 1 :]]

        def element(*at: Any) -> Any:
            return table(*at[:axis], index(*at[axis : axis + count]), *at[axis + count :])

        return te.compute(shape, element, name="take")

    return builder.call_te(take, table, index, primfunc_name_hint="take")


def _legalize_arithmetic(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """A 0 among the operands stays: TVM takes ``0 * x`` for 0 while it builds the expression, and refuses ``x / 0``."""
    arguments = [_number(argument) for argument in call.args]
    if all(isinstance(argument, GenericConst) and not argument.ty.ndim for argument in call.args):
        return tvm_rule(builder, call)
    if all(str(argument.ty.dtype) == "bool" for argument in call.args):
        return TRUTH_RULES.get(call.op.name, tvm_rule)(builder, call)
    name = call.op.name.rpartition(".")[2]
    return builder.call_te(getattr(topi, name), *arguments, primfunc_name_hint=name)


def _number(argument: Any) -> Any:
    """A constant number as an expression, 0 as one that TVM does not see through; anything else as it is."""
    if not isinstance(argument, GenericConst) or argument.ty.ndim:
        return argument
    value, dtype = argument.value.numpy().item(), str(argument.ty.dtype)
    return hidden(value, dtype) if value == 0 and "float" in dtype else tirx.const(value, dtype)


def _legalize_softplus(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Beyond the threshold it is x, as in PyTorch: ``exp`` would overflow; and ``log1p`` is exact for small values."""
    beta, threshold = float(call.attrs.beta), float(call.attrs.threshold)

    def softplus(x: te.Tensor) -> te.Tensor:
        def element(*at: Any) -> Any:
            scaled = x(*at) * tirx.const(beta, x.dtype)
            smooth = tirx.log1p(tirx.exp(scaled)) / tirx.const(beta, x.dtype)
            return tirx.Select(scaled > tirx.const(threshold, x.dtype), x(*at), smooth)

        return te.compute(x.shape, element, name="softplus")

    return builder.call_te(softplus, call.args[0], primfunc_name_hint="softplus")


def _legalize_full(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Any number, infinities and NaN too, which TVM's rule cannot compare with the dtype."""
    shape, value = call.ty.shape, call.args[1]
    if not isinstance(value, GenericConst) or not isinstance(shape, relax.ShapeExpr):
        return tvm_rule(builder, call)
    number = tirx.const(value.value.numpy().item(), str(call.ty.dtype))
    return builder.call_te(lambda: te.compute(shape.values, lambda *_: number, name="full"), primfunc_name_hint="full")


_POWERS: dict[float, Callable[[Any], Any]] = {
    2.0: lambda x: x * x,
    3.0: lambda x: x * x * x,
    0.5: tirx.sqrt,
    -0.5: lambda x: tirx.const(1, x.ty.dtype) / tirx.sqrt(x),
    -1.0: lambda x: tirx.const(1, x.ty.dtype) / x,
    -2.0: lambda x: tirx.const(1, x.ty.dtype) / (x * x),
}
"""Exponents that need no logarithm: those that PyTorch computes in the same way (ATen, ``pow_tensor_scalar``)."""


def _legalize_power(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    base, exponent = call.args
    function = None
    if isinstance(exponent, GenericConst) and not exponent.ty.ndim and str(base.ty.dtype).startswith("float"):
        function = _POWERS.get(exponent.value.numpy().item())
    if function is None or not isinstance(base.ty, TensorType) or isinstance(base, GenericConst):
        return tvm_rule(builder, call)
    return builder.call_te(
        lambda x: te.compute(x.shape, lambda *at: function(x(*at)), name="power"), base, primfunc_name_hint="power"
    )


_ARITHMETIC = {f"relax.{name}": _legalize_arithmetic for name in ("add", "subtract", "multiply", "divide")}
_ARITHMETIC["relax.power"] = _legalize_power
_ARITHMETIC["relax.nn.softplus"] = _legalize_softplus
_ARITHMETIC["relax.full"] = _ARITHMETIC["relax.full_like"] = _legalize_full
