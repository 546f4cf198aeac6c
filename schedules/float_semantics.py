"""Floating-point functions on every target: NaN passes through maxima, libm computes what TVM approximates.

TVM's code for a maximum is a comparison, false for NaN, that takes the other side; ``fmaxf`` of CUDA takes it too. For
``tanh``, ``sinh``, ``log1p`` and similar functions it has formulas that cancel near 0 or overflow far from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tvm
from tvm import IRModule

from edbatch_tvm.tvm_compat import Call, TensorLoad, structural_map, tirx

_SUFFIX = {"float32": "f", "float64": ""}

LIBM = (
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cosh",
    "erf",
    "hypot",
    "log1p",
    "sinh",
    "tan",
    "tanh",
)
"""Functions that libm computes, CUDA's library of the same names on a GPU."""


@tvm.transform.module_pass(opt_level=0, name="FloatSemantics")
class FloatSemantics:
    """Lower maxima, minima and elementary functions so that they give what libm and PyTorch give.

    Before::

        y = T.max(x, 0.0)
        z = T.max(x, y)
        w = T.tanh(x)

    After::

        y = T.Select(x < 0.0, 0.0, x)                              # one instruction, the second operand where x is NaN
        z = T.Select(y < x, x, T.Select(x <= y, y, x + y))         # vectors have no isnan
        w = T.call_pure_extern("float32", "tanhf", x)
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        rules = [(tirx.Max, _maximum), (tirx.Min, _minimum), (Call, _libm)]
        functions = {}
        for var, function in mod.functions.items():
            if isinstance(function, tirx.PrimFunc):
                function = function.with_body(structural_map(function.body, rules))
            functions[var] = function
        return IRModule(functions, attrs=mod.attrs)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two floats; NaN if one of them is NaN."""
    return _extreme(a, b, lambda less, x, y: less(y, x))


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two floats; NaN if one of them is NaN."""
    return _extreme(a, b, lambda less, x, y: less(x, y))


def _maximum(node: Any) -> Any:
    return maximum(node.a, node.b) if _is_float(node) else node


def _minimum(node: Any) -> Any:
    return minimum(node.a, node.b) if _is_float(node) else node


def _is_float(node: Any) -> bool:
    return "float" in str(node.ty.dtype)


def _extreme(a: Any, b: Any, compare: Callable[[Any, Any, Any], Any]) -> Any:
    """The one of `a` and `b` that ``compare(LT, a, b)`` prefers. A comparison with a number needs no test for NaN."""
    if _is_number(a):
        a, b = b, a
    if _is_number(b):
        return _let(a, lambda x: tirx.Select(compare(tirx.LT, b, x), b, x))

    def chosen(x: Any, y: Any) -> Any:
        return tirx.Select(compare(tirx.LT, x, y), x, tirx.Select(compare(tirx.LE, y, x), y, x + y))

    return _let(a, lambda x: _let(b, lambda y: chosen(x, y)))


def _is_number(value: Any) -> bool:
    """A constant that is not NaN."""
    return isinstance(value, tirx.FloatImm) and not math.isnan(value.value)


def _let(value: Any, body: Any) -> Any:
    if isinstance(value, tirx.Var | tirx.FloatImm | TensorLoad):
        return body(value)
    variable = tirx.Var("v", str(value.ty.dtype))
    return tirx.Let(variable, value, body(variable))


def _libm(call: Any) -> Any:
    name = getattr(call.op, "name", "").rpartition(".")[2]
    dtype = str(getattr(call.ty, "dtype", ""))
    if name not in LIBM or dtype not in _SUFFIX:
        return call
    return tirx.call_pure_extern(dtype, name + _SUFFIX[dtype], *call.args)
