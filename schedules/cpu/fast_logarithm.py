"""Logarithms and the error function of float32 as polynomials that vectorise; libm computes those of float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from edbatch_tvm.tvm_compat import tirx
from schedules.float_semantics import maximum, minimum

# erf on [-3.95, 3.95] is x times a polynomial of x^2 over another, fitted here to a relative error of 2e-8, before
# rounding. Beyond, it is 1 in float32. Coefficients from the highest power down.
_ERF_LIMIT = 3.95
_ERF_ODD = (
    2.0259288753565316e-06,
    2.8468012971492353e-04,
    3.807905175563272e-03,
    5.287465304412969e-02,
    1.9154460532853237e-01,
    1.128379143875338,
)
_ERF_EVEN = (
    3.78316171535368e-05,
    1.1706600752859546e-03,
    1.5054579127636544e-02,
    1.1455722492784001e-01,
    5.030846638837646e-01,
    1.0,
)

# log(1 + f) = f - f^2 / 2 + f^3 P(f) for 1 + f from the root of 1/2 to that of 2, fitted to a relative error of 6e-9.
_LOG = (
    -7.63443665469777e-02,
    1.2761562584240443e-01,
    -1.3160198334383683e-01,
    1.4201761057976076e-01,
    -1.6623356021639157e-01,
    2.00012267115997e-01,
    -2.500082106920887e-01,
    3.333333170933264e-01,
)
_LN2 = (0.693359375, -2.12194440e-4)
"""ln 2 as a sum: an exponent times the first is exact."""

_ROOT_HALF = 0x3F3504F3
"""The bits of the root of 1/2."""

_LEAST_NORMAL, _RAISED = 2.0**-126, 25


def erf(x: Any) -> Any:
    """The error function of a float32; relative error below 1e-7.

    The ratio is one of float64. In float32 it would be off by 2e-7, which is much of 1 + erf(x) for a negative x.
    """

    def ratio(x: Any) -> Any:
        return _let(x * x, lambda square: x * _polynomial(square, _ERF_ODD) / _polynomial(square, _ERF_EVEN))

    wide = tirx.Cast("float64", _clamp(x, _ERF_LIMIT))
    return _clamp(tirx.Cast("float32", _let(wide, ratio)), 1.0)


def log(x: Any) -> Any:
    """The natural logarithm of a float32, subnormal numbers among them; relative error below 2e-7."""
    return _let(x, _log)


def log1p(x: Any) -> Any:
    """The logarithm of 1 + x: that of the rounded sum u, and (x - (u - 1)) / u for what rounding took."""

    def corrected(x: Any, u: Any) -> Any:
        rest = (x + (u + _const(-1.0)) * _const(-1.0)) / u
        inside = tirx.And(u < _const(math.inf), _const(0.0) < u)
        whole = _let(_log(u), lambda known: tirx.Select(inside, known + rest, known))
        return tirx.Select(u == _const(1.0), x, whole)

    def form(x: Any) -> Any:
        # By way of its bits: TVM takes (x + 1) - 1 for x.
        u = tirx.reinterpret("float32", tirx.reinterpret("int32", x + _const(1.0)))
        return _let(u, lambda u: corrected(x, u))

    return _let(x, form)


def _log(x: Any) -> Any:
    """The logarithm of the variable `x`: of its mantissa, and its exponent times ln 2."""
    small = x < _const(_LEAST_NORMAL)
    raised = tirx.Select(small, x * _const(2.0**_RAISED), x)

    def of_bits(bits: Any) -> Any:
        exponent = (bits - _integer(_ROOT_HALF)) >> 23
        return _let(exponent, lambda e: of_parts(e, tirx.reinterpret("float32", bits - (e << 23)) + _const(-1.0)))

    def of_parts(e: Any, fraction: Any) -> Any:
        n = tirx.Cast("float32", e) - tirx.Select(small, _const(_RAISED), _const(0.0))
        return _let(n, lambda n: _let(fraction, lambda f: total(n, f)))

    def total(n: Any, f: Any) -> Any:
        tail = f * f * (f * _polynomial(f, _LOG) + _const(-0.5)) + n * _const(_LN2[1])
        return n * _const(_LN2[0]) + (f + tail)

    known = _let(tirx.reinterpret("int32", raised), of_bits)
    of_others = tirx.Select(_const(0.0) <= x, _const(-math.inf), _const(math.nan))
    return tirx.Select(_const(0.0) < x, tirx.Select(x < _const(math.inf), known, x), of_others)


def _polynomial(x: Any, coefficients: Sequence[float]) -> Any:
    first, *rest = (tirx.const(one, str(x.ty.dtype)) for one in coefficients)
    return reduce(lambda total, c: total * x + c, rest, first)


def _clamp(x: Any, limit: float) -> Any:
    return maximum(minimum(x, _const(limit)), _const(-limit))


def _const(value: float) -> Any:
    return tirx.const(value, "float32")


def _integer(value: int) -> Any:
    return tirx.const(value, "int32")


def _let(value: Any, body: Callable[[Any], Any]) -> Any:
    variable = tirx.Var("v", str(value.ty.dtype))
    return tirx.Let(variable, value, body(variable))
