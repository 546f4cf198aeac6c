"""``log1p`` and ``expm1`` of PyTorch: TVM's importer writes ``log(1 + x)`` and ``exp(x) - 1``, which cancel near 0.

Relax has neither function. Where u = 1 + x is rounded, log(u) x / (u - 1) is right to a few roundings, for the same
rounding stands in numerator and denominator; and so it is for exp(x) - 1, with u = exp(x). (Kahan's formulas; N. J.
Higham, *Accuracy and Stability of Numerical Algorithms*, section 1.14.1.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tvm import relax
from tvm.relax import op as R


def _log1p(x: relax.Expr, number: Callable[[float], relax.Expr]) -> relax.Expr:
    u = R.add(number(1.0), x)
    quotient = R.multiply(R.log(u), R.divide(x, R.subtract(u, number(1.0))))
    return _unless(u, {1.0: x, math.inf: u}, quotient, number)


def _expm1(x: relax.Expr, number: Callable[[float], relax.Expr]) -> relax.Expr:
    u = R.exp(x)
    quotient = R.multiply(R.subtract(u, number(1.0)), R.divide(x, R.log(u)))
    # For a tiny u, which may have lost its last bits, the result is -1.
    quotient = R.where(R.less(u, number(1e-8)), number(-1.0), quotient)
    return _unless(u, {1.0: x, math.inf: u}, quotient, number)


def _unless(u: relax.Expr, cases: dict[float, relax.Expr], value: relax.Expr, number: Any) -> relax.Expr:
    for case, result in cases.items():
        value = R.where(R.equal(u, number(case)), result, value)
    return value


def _conversion(function: Callable[..., relax.Expr]) -> Callable[[Any, Any], relax.Var]:
    def convert(node: Any, importer: Any) -> relax.Var:
        builder, x = importer.block_builder, importer.env[node.args[0]]
        dtype = str(x.ty.dtype)
        if "float" not in dtype:
            dtype, x = "float32", builder.emit(R.astype(x, "float32"))
        return builder.emit(builder.normalize(function(x, lambda value: relax.const(value, dtype))))

    return convert


SMALL_DIFFERENCES: dict[str, Any] = {"log1p.default": _conversion(_log1p), "expm1.default": _conversion(_expm1)}
