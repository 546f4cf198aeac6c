"""TIR for Relax operators on truth values, for LegalizeCells.

TVM's own forms negate the bits of a byte (``logical_not`` of true is -2), mix vectors of bytes and bits, compare bits
as floating-point numbers, have no products of truth values, and say that NaN is not unequal to itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax, te, topi

from edbatch_tvm.tvm_compat import tirx
from relay_ext.call_tvm_rule import tvm_rule


def _truth(value: Any) -> Any:
    """1 for everything but 0, NaN included, as int8."""
    zero, one = tirx.const(0, "int8"), tirx.const(1, "int8")
    if str(value.ty.dtype).startswith("bool"):
        return tirx.Cast("int8", value)
    return tirx.Select(value == tirx.const(0, str(value.ty.dtype)), zero, one)


def _combined(name: str, build: Callable[..., Any]) -> Callable[[relax.BlockBuilder, relax.Call], relax.Expr]:
    def rule(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        shape = list(call.ty.shape.values)

        def compute(*given: te.Tensor) -> te.Tensor:
            wide = [topi.broadcast_to(one, shape) if list(one.shape) != shape else one for one in given]
            return te.compute(shape, lambda *at: tirx.Cast("bool", build(*[one(*at) for one in wide])), name=name)

        return builder.call_te(compute, *call.args, primfunc_name_hint=name)

    return rule


def _on_truth(name: str, build: Callable[..., Any]) -> Callable[[relax.BlockBuilder, relax.Call], relax.Expr]:
    combined = _combined(name, build)

    def rule(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        dtype = str(call.args[0].ty.dtype)
        if dtype == "bool" or (name == "not_equal" and dtype.startswith("float")):  # NaN != NaN
            return combined(builder, call)
        return tvm_rule(builder, call)

    return rule


def _chosen(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """``where`` of truth values, which TVM mixes with bytes."""
    if any(str(one.ty.dtype) != "bool" for one in call.args):
        return tvm_rule(builder, call)

    def build(test: Any, one: Any, other: Any) -> Any:
        return _truth(test) & _truth(one) | (_truth(test) ^ tirx.const(1, "int8")) & _truth(other)

    return _combined("where", build)(builder, call)


def _unequal(one: Any, other: Any) -> Any:
    if str(one.ty.dtype).startswith("bool"):
        return _truth(one) ^ _truth(other)
    return tirx.Select(one == other, tirx.const(0, "int8"), tirx.const(1, "int8"))


TRUTH_RULES: dict[str, Any] = {
    "relax.logical_not": _combined("logical_not", lambda one: _truth(one) ^ tirx.const(1, "int8")),
    "relax.logical_and": _combined("logical_and", lambda one, other: _truth(one) & _truth(other)),
    "relax.logical_or": _combined("logical_or", lambda one, other: _truth(one) | _truth(other)),
    "relax.logical_xor": _combined("logical_xor", lambda one, other: _truth(one) ^ _truth(other)),
    "relax.equal": _on_truth("equal", lambda one, other: _truth(one) ^ _truth(other) ^ tirx.const(1, "int8")),
    "relax.multiply": _on_truth("multiply", lambda one, other: _truth(one) & _truth(other)),
    "relax.add": _on_truth("add", lambda one, other: _truth(one) | _truth(other)),
    "relax.not_equal": _on_truth("not_equal", _unequal),
    "relax.bitwise_not": _on_truth("bitwise_not", lambda one: _truth(one) ^ tirx.const(1, "int8")),
    "relax.bitwise_and": _on_truth("bitwise_and", lambda one, other: _truth(one) & _truth(other)),
    "relax.bitwise_or": _on_truth("bitwise_or", lambda one, other: _truth(one) | _truth(other)),
    "relax.bitwise_xor": _on_truth("bitwise_xor", lambda one, other: _truth(one) ^ _truth(other)),
    "relax.where": _chosen,
}
"""Rules by operator."""
