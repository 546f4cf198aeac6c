"""Sigmoid, tanh, exp, and of float32 erf and logarithms, as short polynomials that vectorise.

LLVM calls libm once a lane for these functions; a rational polynomial costs a few vector instructions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import tvm
from tvm import IRModule

from edbatch_tvm.tvm_compat import Call, structural_map, tirx
from schedules.cpu import fast_logarithm, fast_power
from schedules.cpu.loads_first import called, with_loads_first
from schedules.cpu.machine import machine_of
from schedules.float_semantics import maximum, minimum

# tanh of float32 on [-9.5, 9.5]: an odd polynomial over an even one, fitted here to the least relative error (1.7e-8,
# before rounding); both begin with 1, so that tanh(x) = x for tiny x. Beyond 9 the quotient exceeds 1 by a few rounding
# errors, which the last clamp takes away. Coefficients from the highest power down.
_TANH_LIMIT = 9.5
_TANH_ODD = (1.3419829691940777e-08, 2.0661269445554353e-05, 3.498996375128627e-03, 1.3383980095386505e-01, 1.0)
_TANH_EVEN = (7.804732717886509e-07, 3.2910390291363e-04, 2.5890206918120384e-02, 4.671730101108551e-01, 1.0)

_TWICE_TANH_LIMIT = 44.0
"""2 x from which on the float64 tanh(x) is 1."""


@dataclass(frozen=True)
class Format:
    """A floating-point format, and exp in it.

    exp(x) = 2^n * exp(r), r = x - n ln 2 in [-ln 2 / 2, ln 2 / 2], with ln 2 as a sum of two numbers, the first of so
    few bits that n times it is exact. The polynomials for exp(r) are fitted here to the least relative error: 2e-9 and
    9e-8 for float32, 4e-17 (of exp(r) - 1) for float64.

    Attributes
    ----------
    dtype, bits : str
        Its name, and that of the integers of its size.
    mantissa : int
        Bits of the mantissa.
    one : int
        The bits of 1.
    ln2 : tuple of float
    near_ln2 : float
        The number of the format that is nearest to ln 2. Where n times it is not rounded before it is added, it does
        for the small n of a tanh of float64, and for all n of a sigmoid of float32.
    exp, short_exp : tuple of float
        Coefficients of exp(r), from the highest power down; the shorter ones for what is added to 1.
    exp_range : tuple of float
        The first and the last number whose exp is a normal number.
    sigmoid_range : tuple of float
        exp(-x) is infinite below it; 1 + exp(-x) is 1 above it.
    """

    dtype: str
    bits: str
    mantissa: int
    one: int
    ln2: tuple[float, float]
    near_ln2: float
    exp: tuple[float, ...]
    short_exp: tuple[float, ...]
    exp_range: tuple[float, float]
    sigmoid_range: tuple[float, float]

    @property
    def round(self) -> float:
        """1.5 * 2^mantissa: what is added to a small number rounds it to an integer; its lowest bits hold that then."""
        return 1.5 * 2.0**self.mantissa

    def const(self, value: float) -> Any:
        """A number of this format."""
        return tirx.const(value, self.dtype)

    def integer(self, value: int) -> Any:
        """An integer of the same size."""
        return tirx.const(value, self.bits)


FLOAT32 = Format(
    "float32",
    "int32",
    23,
    0x3F800000,
    (0.693359375, -2.12194440e-4),
    0.693147182464599609375,
    (
        1.3843607157468796e-03,
        8.374195545911789e-03,
        4.166800528764725e-02,
        1.6666430234909058e-01,
        4.999999403953552e-01,
        1.0,
        1.0,
    ),
    (
        8.290272206068039e-03,
        4.189816117286682e-02,
        1.666763871908188e-01,
        4.999914765357971e-01,
        9.999997019767761e-01,
        1.0,
    ),
    (-87.3365402, 88.7228317),
    (-88.8, 87.0),
)

_EXP_FLOAT64 = (
    2.5100424157005067e-08,
    2.7620138719733994e-07,
    2.7557268378684192e-06,
    2.480152119021773e-05,
    1.9841269863105968e-04,
    1.3888888917281794e-03,
    8.333333333330051e-03,
    4.166666666662399e-02,
    1.6666666666666669e-01,
    5.000000000000001e-01,
    1.0,
    1.0,
)

FLOAT64 = Format(
    "float64",
    "int64",
    52,
    0x3FF0000000000000,
    (6.93147180369123816490e-01, 1.90821492927058770002e-10),
    0.6931471805599453,
    _EXP_FLOAT64,
    _EXP_FLOAT64,
    (-708.3964185322641, 709.782712893384),
    (-710.0, 40.0),
)

_FORMATS = {one.dtype: one for one in (FLOAT32, FLOAT64)}
_LOG2_E = 1.44269504088896341


@tvm.transform.module_pass(opt_level=0, name="FastMath")
class FastMath:
    """Replace ``T.sigmoid``, ``T.tanh`` and ``T.exp`` of float32 and float64 in every PrimFunc.

    Of float32 ``T.erf``, ``T.log`` and ``T.log1p`` as well (:mod:`schedules.cpu.fast_logarithm`), and ``T.pow``
    (:mod:`schedules.cpu.fast_power`).

    Before::

        y[j] = T.sigmoid(x[j])

    After::

        y[j] = 1.0 / (1.0 + exp(-x[j]))     # exp as a polynomial times a power of two, clamped for this use

    And a product with a sigmoid becomes one division, of a tanh as well::

        z[j] = T.sigmoid(x[j]) * T.tanh(y[j])
        z[j] = p / (q * (1.0 + exp(-x[j])))  # p / q is tanh(y[j])

    NaN gives NaN, infinities give the limits, and every normal number a relative error below 5e-7 (float64: 1e-15;
    ``docs/numerics.md`` has the table). TVM's ``relax.transform.FastMathTransform`` works on Relax operators, gives
    1 for tanh(NaN), and leaves sigmoid and user-written TIR as they are.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        functions = {}
        for var, function in mod.functions.items():
            if isinstance(function, tirx.PrimFunc):
                target = function.attrs.get("target")
                fused = target is not None and machine_of(target).fused
                body = with_loads_first(function.body)
                body = structural_map(body, (tirx.Mul, partial(_gated, fused)))
                function = function.with_body(structural_map(body, (Call, partial(_replace, fused))))
            functions[var] = function
        return IRModule(functions, attrs=mod.attrs)


def _gated(fused: bool, product: Any) -> Any:
    """A product with a sigmoid as a quotient: a division takes its time beside multiplications, which are the limit."""
    gate, other = (product.a, product.b) if called(product.a) == "sigmoid" else (product.b, product.a)
    if called(gate) != "sigmoid" or str(gate.ty.dtype) not in _FORMATS:
        return product
    of = _FORMATS[str(gate.ty.dtype)]
    divisor = _one_and_exp(of, gate.args[0], fused)
    if called(other) == "tanh":
        return _let(of, divisor, lambda divisor: _tanh(of, other.args[0], fused, divisor))
    return other / divisor


def _replace(fused: bool, call: Any) -> Any:
    name = called(call)
    if name in _OF_FLOAT32 and str(call.ty.dtype) == "float32":
        return _OF_FLOAT32[name](call.args[0])
    if name == "pow" and str(call.ty.dtype) == "float32":
        base, exponent = call.args
        return fast_power.power(base, exponent, partial(_exp_in_range, FLOAT64))
    if name not in ("exp", "sigmoid", "tanh") or str(call.ty.dtype) not in _FORMATS:
        return call
    of, (x,) = _FORMATS[str(call.ty.dtype)], call.args
    if name == "exp":
        return _exp(of, x)
    return _tanh(of, x, fused) if name == "tanh" else of.const(1.0) / _one_and_exp(of, x, fused)


def _polynomial(of: Format, x: Any, coefficients: Sequence[float]) -> Any:
    """The polynomial with these coefficients, highest power first."""
    if of is FLOAT32:
        return _horner(of, x, coefficients)
    return _let(of, x * x, lambda square: _even_and_odd(of, x, square, coefficients[::-1]))


def _horner(of: Format, x: Any, coefficients: Sequence[float]) -> Any:
    return reduce(lambda total, c: total * x + of.const(c), coefficients[1:], of.const(coefficients[0]))


def _even_and_odd(of: Format, x: Any, square: Any, terms: Sequence[float]) -> Any:
    """``terms[0] + terms[1] x + terms[2] x^2 + ...`` as two polynomials of the square.

    They are computed beside each other, for one multiplication more than by Horner's rule.
    """
    even, odd = (_horner(of, square, terms[first::2][::-1]) for first in (0, 1))
    return odd * x + even


def _clamp(of: Format, x: Any, low: float, high: float) -> Any:
    """`x` between two numbers; NaN stays NaN."""
    return maximum(minimum(x, of.const(high)), of.const(low))


def _let(of: Format, value: Any, body: Callable[[Any], Any]) -> Any:
    """``let v = value in body(v)``: without it the expression tree would repeat `value` at every use."""
    variable = tirx.Var("v", of.dtype)
    return tirx.Let(variable, value, body(variable))


def _tanh(of: Format, x: Any, fused: bool, divisor: Any = None) -> Any:
    """The tanh of `x`, divided by `divisor` if there is one, which is at least 1."""
    return _short_tanh(x, divisor) if of is FLOAT32 else _long_tanh(of, x, fused, divisor)


def _short_tanh(x: Any, divisor: Any) -> Any:
    """The tanh of float32 as a quotient of polynomials."""
    of = FLOAT32

    def ratio(x: Any) -> Any:
        def quotient(square: Any) -> Any:
            even = _polynomial(of, square, _TANH_EVEN)
            return x * _polynomial(of, square, _TANH_ODD) / (even if divisor is None else even * divisor)

        return _let(of, x * x, quotient)

    result = _let(of, _clamp(of, x, -_TANH_LIMIT, _TANH_LIMIT), ratio)
    return _clamp(of, result, -1.0, 1.0) if divisor is None else result


def _long_tanh(of: Format, x: Any, fused: bool, divisor: Any) -> Any:
    """tanh(x) = e / (e + 2) with e = exp(2 |x|) - 1 = 2^n (exp(r) - 1) + (2^n - 1), and the sign of x.

    Near 0, n is 0 and nothing cancels: e is r times a polynomial, as exact for tiny numbers as for others.
    """
    sign = of.integer(-(2**63))

    def quotient(r: Any, exponent: Any) -> Any:
        def over(power: Any) -> Any:
            e = r * _polynomial(of, r, of.exp[:-1]) * power + (power + of.const(-1.0))
            if divisor is None:
                return _let(of, e, lambda e: e / (e + of.const(2.0)))
            return _let(of, e, lambda e: e / ((e + of.const(2.0)) * divisor))

        return _let(of, _power(of, exponent), over)

    def signed(x: Any) -> Any:
        bits = tirx.reinterpret(of.bits, x)
        size = tirx.reinterpret(of.dtype, bits & ~sign)
        twice = minimum(size * of.const(2.0), of.const(_TWICE_TANH_LIMIT))
        result = _let(of, twice, lambda y: _split(of, y, 1, quotient, near=fused))
        return tirx.reinterpret(of.dtype, tirx.reinterpret(of.bits, result) | (bits & sign))

    return _let(of, x, signed)


def _one_and_exp(of: Format, x: Any, fused: bool) -> Any:
    """1 + exp(-x), what a sigmoid divides by."""

    def total(r: Any, exponent: Any) -> Any:
        return of.const(1.0) + _polynomial(of, r, of.short_exp) * _power(of, exponent)

    return _let(of, _clamp(of, x, *of.sigmoid_range), lambda x: _split(of, x, -1, total, near=fused and of is FLOAT32))


def _exp(of: Format, x: Any) -> Any:
    low, high = of.exp_range
    if isinstance(x, tirx.Min) and isinstance(x.b, tirx.FloatImm) and float(x.b.value) <= 0:
        return _exp_of_negative(of, x)

    def form(x: Any) -> Any:
        # Beyond the range: 0, or infinity, which x times infinity is there, as it is NaN for NaN.
        inside = tirx.Select(of.const(low) <= x, _exp_in_range(of, x), of.const(0.0))
        return tirx.Select(x <= of.const(high), inside, x * of.const(math.inf))

    return _let(of, x, form)


def _exp_in_range(of: Format, x: Any) -> Any:
    """The exponential of a variable between the limits of normal results, or NaN."""
    return _split(of, x, 1, lambda r, exponent: _scaled(of, _polynomial(of, r, of.exp), exponent))


def _exp_of_negative(of: Format, x: Any) -> Any:
    """The exponential of what is not above 0: it does not overflow, and the power of two is a number to multiply with.

    A product with NaN is NaN, so that nothing but the lower end of the range needs a test.
    """

    def form(x: Any) -> Any:
        def product(r: Any, exponent: Any) -> Any:
            return _polynomial(of, r, of.exp) * tirx.reinterpret(of.dtype, exponent)

        inside = _split(of, x, 1, product, bias=of.one >> of.mantissa)
        return tirx.Select(x < of.const(of.exp_range[0]), of.const(0.0), inside)

    return _let(of, x, form)


def _split(
    of: Format,
    x: Any,
    sign: int,
    body: Callable[[Any, Any], Any],
    bias: int = 0,
    near: bool = False,
) -> Any:
    """``body(r, (n + bias) << mantissa)`` for the n and r of exp(`sign` * `x`).

    Adding a number that is larger than 2^mantissa and taking it away again rounds to an integer, without a conversion
    that is undefined for NaN. The difference is written as a sum: TVM takes ``(x + y) - y`` for x.
    """
    parts = (of.near_ln2,) if near else of.ln2

    def remainder(rounded: Any) -> Any:
        exponent = tirx.reinterpret(of.bits, rounded) << of.mantissa

        def rest(n: Any) -> Any:
            r = reduce(lambda total, part: total + n * of.const(-part), parts, x * of.const(sign))
            return _let(of, r, lambda r: body(r, exponent))

        return _let(of, rounded + of.const(-of.round - bias), rest)

    return _let(of, x * of.const(sign * _LOG2_E) + of.const(of.round + bias), remainder)


def _scaled(of: Format, p: Any, exponent: Any) -> Any:
    """`p` times 2^n by an addition to its exponent: right for every normal result, 2^128 * 0.9 among them."""
    return tirx.reinterpret(of.dtype, tirx.reinterpret(of.bits, p) + exponent)


def _power(of: Format, exponent: Any) -> Any:
    """2^n, infinite for the n after the largest."""
    return tirx.reinterpret(of.dtype, exponent + of.integer(of.one))


_OF_FLOAT32 = {"erf": fast_logarithm.erf, "log": fast_logarithm.log, "log1p": fast_logarithm.log1p}
