"""pow of float32 as polynomials of float64 that vectorise; libm computes that of float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from edbatch_tvm.tvm_compat import structural_map, tirx

# ln m = 2 s (1 + s^2 / 3 + s^4 / 5 + ...) with s = (m - 1) / (m + 1), for m from the root of 1/2 to that of 2: what is
# left out is below 2e-12 of it. Coefficients from the highest power down.
_LOG = tuple(2.0 / (2 * n + 1) for n in range(6, -1, -1))

_LN2 = math.log(2.0)

_LIMIT = 250.0
"""The exponential of it and of minus it are infinity and 0 in float32."""

_NAN = 0x7FC00000
"""Bits that make NaN of any number."""

_ROOT_HALF = 0x3FE6A09E667F3BCD
"""The bits of the root of 1/2, as a float64."""


def power(x: Any, y: Any, exp: Callable[[Any], Any]) -> Any:
    """`x` to the power `y`, of float32, as in C; relative error below 1e-7.

    Parameters
    ----------
    exp : callable
        The exponential of a float64 between minus and plus 250, or NaN.
    """
    return _in_a_row(_let(x, lambda x: _let(y, lambda y: _power(x, y, exp))))


def _in_a_row(expression: Any) -> Any:
    """`expression` with one variable after the other: none is computed within the value of another.

    TVM simplifies the value of a variable twice where it binds one: those within it four times, and so on.
    """
    bound: list[tuple[Any, Any]] = []

    def flat(node: Any) -> Any:
        return structural_map(node, (tirx.Let, bind), order="pre")

    def bind(let: Any) -> Any:
        bound.append((let.var, flat(let.value)))
        return flat(let.body)

    result = flat(expression)
    for variable, value in reversed(bound):
        result = tirx.Let(variable, value, result)
    return result


def _power(x: Any, y: Any, exp: Callable[[Any], Any]) -> Any:
    size = tirx.reinterpret("float32", tirx.reinterpret("int32", x) & _integer(2**31 - 1))
    sign = tirx.reinterpret("int32", x) & _integer(-(2**31))
    # Of a negative number there are whole powers only; -0 and minus infinity have all.
    broken = tirx.Select(tirx.EQ(tirx.floor(y), y), _integer(0), _integer(_NAN))
    negative = tirx.Select(x < _single(0.0), broken, _integer(0))
    none = tirx.Select(x <= _single(-math.inf), _integer(0), negative)
    exponent = _let(size, lambda size: _exponent(size, y))
    result = tirx.reinterpret("int32", tirx.Cast("float32", _let(exponent, exp)))
    return tirx.reinterpret("float32", result | (sign & _odd(y)) | none)


def _exponent(size: Any, y: Any) -> Any:
    """``y * ln size``, so that its exponential in float32 is the result: 0 where that is 1, whatever the other is."""
    known = _let(tirx.Cast("float64", size), lambda wide: _logarithm(size, wide))
    product = tirx.Select(tirx.EQ(size, _single(1.0)), _double(0.0), tirx.Cast("float64", y) * known)
    chosen = tirx.Select(tirx.EQ(y, _single(0.0)), _double(0.0), product)
    # These keep NaN, and TVM does not put them in the place of a variable that is read many times.
    least = tirx.call_llvm_intrin("float64", "llvm.minimum", chosen, _double(_LIMIT))
    return tirx.call_llvm_intrin("float64", "llvm.maximum", least, _double(-_LIMIT))


def _odd(y: Any) -> Any:
    """All bits where `y` is an odd number, else none."""
    rest = tirx.floor(y * _single(0.5)) * _single(-2.0) + y
    return tirx.Select(tirx.EQ(rest, _single(1.0)), _integer(-1), _integer(0))


def _logarithm(size: Any, wide: Any) -> Any:
    """The logarithm of a number that is not negative: every float32 is a normal float64."""

    def of_bits(bits: Any) -> Any:
        exponent = (bits - tirx.const(_ROOT_HALF, "int64")) >> 52
        return _let(exponent, lambda e: of_parts(e, tirx.reinterpret("float64", bits - (e << 52))))

    def of_parts(e: Any, mantissa: Any) -> Any:
        ratio = _let(mantissa, lambda m: (m + _double(-1.0)) / (m + _double(1.0)))
        return _let(ratio, lambda s: tirx.Cast("float64", tirx.Cast("int32", e)) * _double(_LN2) + series(s))

    def series(s: Any) -> Any:
        return s * _let(s * s, lambda square: _polynomial(square))

    known = _let(tirx.reinterpret("int64", wide), of_bits)
    finite = tirx.Select(size < _single(math.inf), known, wide)
    return tirx.Select(tirx.EQ(size, _single(0.0)), _double(-math.inf), finite)


def _polynomial(x: Any) -> Any:
    total = _double(_LOG[0])
    for coefficient in _LOG[1:]:
        total = total * x + _double(coefficient)
    return total


def _single(value: float) -> Any:
    return tirx.const(value, "float32")


def _integer(value: int) -> Any:
    return tirx.const(value, "int32")


def _double(value: float) -> Any:
    return tirx.const(value, "float64")


def _let(value: Any, body: Callable[[Any], Any]) -> Any:
    variable = tirx.Var("v", str(value.ty.dtype))
    return tirx.Let(variable, value, body(variable))
