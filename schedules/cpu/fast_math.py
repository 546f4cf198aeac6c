"""Sigmoid, tanh and exp of float32 as short polynomials that vectorise.

LLVM calls libm once a lane for these functions; a rational polynomial costs a few vector instructions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import tvm
from tvm import IRModule

from edbatch_tvm.tvm_compat import Call, structural_map, tirx
from schedules.float_semantics import maximum, minimum

_FLOAT = "float32"

# tanh on [-9.5, 9.5]: an odd polynomial over an even one, fitted here to the least relative error (1.7e-8, before
# rounding); both begin with 1, so that tanh(x) = x for tiny x. Beyond 9 the quotient exceeds 1 by a few rounding
# errors, which the last clamp takes away. Coefficients from the highest power down.
_TANH_LIMIT = 9.5
_TANH_ODD = (1.3419829691940777e-08, 2.0661269445554353e-05, 3.498996375128627e-03, 1.3383980095386505e-01, 1.0)
_TANH_EVEN = (7.804732717886509e-07, 3.2910390291363e-04, 2.5890206918120384e-02, 4.671730101108551e-01, 1.0)

# exp(x) = 2^n * exp(r), r = x - n ln 2 in [-ln 2 / 2, ln 2 / 2], with ln 2 as a sum of two numbers, the first of so few
# bits that n times it is exact. Polynomials for exp(r) fitted here to the least relative error: 2e-9 and 9e-8.
_LOG2_E = 1.44269504088896341
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_EXP = (
    1.3843607157468796e-03,
    8.374195545911789e-03,
    4.166800528764725e-02,
    1.6666430234909058e-01,
    4.999999403953552e-01,
    1.0,
    1.0,
)
_TWICE_EXP = (  # 2 exp(r)
    1.6580544412136078e-02,
    8.379632234573364e-02,
    3.333527743816376e-01,
    9.999829530715942e-01,
    1.9999994039535522,
    2.0,
)
_EXP_LOW, _EXP_HIGH = -87.3365402, 88.7228317  # the first and the last float32 whose exp is a normal number
_ROUND = 12582912.0
"""1.5 * 2^23: what is added to a small number rounds it to an integer, which its lowest bits then hold."""
_SIGMOID_LOW, _SIGMOID_HIGH = -88.8, 87.0  # exp(88.8) is infinite, and 1 + exp(-87) is 1


@tvm.transform.module_pass(opt_level=0, name="FastMath")
class FastMath:
    """Replace float32 ``T.sigmoid``, ``T.tanh`` and ``T.exp`` in every PrimFunc.

    Before::

        y[j] = T.sigmoid(x[j])

    After::

        y[j] = 1.0 / (1.0 + exp(-x[j]))     # exp as a polynomial times a power of two, clamped for this use

    NaN gives NaN, infinities give the limits, and every normal float32 number a relative error below 5e-7
    (``docs/numerics.md`` has the table). TVM's ``relax.transform.FastMathTransform`` works on Relax operators, gives
    1 for tanh(NaN), and leaves sigmoid and user-written TIR as they are.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        functions = {}
        for var, function in mod.functions.items():
            if isinstance(function, tirx.PrimFunc):
                function = function.with_body(structural_map(function.body, (Call, _replace)))
            functions[var] = function
        return IRModule(functions, attrs=mod.attrs)


def _replace(call: Any) -> Any:
    name = getattr(call.op, "name", "").rpartition(".")[2]
    if name not in _FORMS or str(call.ty.dtype) != _FLOAT:
        return call
    return _FORMS[name](call.args[0])


def _const(value: float) -> Any:
    return tirx.const(value, _FLOAT)


def _polynomial(x: Any, coefficients: Sequence[float]) -> Any:
    """Horner's rule, highest power first."""
    return reduce(lambda total, c: total * x + _const(c), coefficients[1:], _const(coefficients[0]))


def _clamp(x: Any, low: float, high: float) -> Any:
    """`x` between two numbers; NaN stays NaN."""
    return maximum(minimum(x, _const(high)), _const(low))


def _let(value: Any, body: Callable[[Any], Any]) -> Any:
    """``let v = value in body(v)``: without it the expression tree would repeat `value` at every use."""
    variable = tirx.Var("v", _FLOAT)
    return tirx.Let(variable, value, body(variable))


def _tanh(x: Any) -> Any:
    def ratio(x: Any) -> Any:
        return _let(x * x, lambda square: x * _polynomial(square, _TANH_ODD) / _polynomial(square, _TANH_EVEN))

    return _clamp(_let(_clamp(x, -_TANH_LIMIT, _TANH_LIMIT), ratio), -1.0, 1.0)


def _sigmoid(x: Any) -> Any:
    def form(x: Any) -> Any:
        return _split(x, -1, lambda r, n: _const(1.0) / (_const(1.0) + _polynomial(r, _TWICE_EXP) * _half_power(n)))

    return _let(_clamp(x, _SIGMOID_LOW, _SIGMOID_HIGH), form)


def _exp(x: Any) -> Any:
    def in_range(x: Any) -> Any:
        return _split(x, 1, lambda r, n: _scaled(_polynomial(r, _EXP), n))

    def form(x: Any) -> Any:
        # Beyond the range: 0, or infinity, which x times infinity is there, as it is NaN for NaN.
        inside = tirx.Select(_const(_EXP_LOW) <= x, in_range(x), _const(0.0))
        return tirx.Select(x <= _const(_EXP_HIGH), inside, x * _const(math.inf))

    return _let(x, form)


def _split(x: Any, sign: int, body: Callable[[Any, Any], Any]) -> Any:
    """``body(r, n << 23)`` for the n and r of exp(`sign` * `x`).

    Adding a number that is larger than 2^23 and taking it away again rounds to an integer, without a conversion that is
    undefined for NaN. The difference is written as a sum: TVM takes ``(x + y) - y`` for x.
    """

    def remainder(rounded: Any) -> Any:
        exponent = tirx.reinterpret("int32", rounded) << 23

        def of(n: Any) -> Any:
            r = x * _const(sign) + n * _const(-_LN2_HIGH) + n * _const(-_LN2_LOW)
            return _let(r, lambda r: body(r, exponent))

        return _let(rounded + _const(-_ROUND), of)

    return _let(x * _const(sign * _LOG2_E) + _const(_ROUND), remainder)


def _scaled(p: Any, exponent: Any) -> Any:
    """`p` times 2^n by an addition to its exponent: right for every normal result, 2^128 * 0.9 among them."""
    return tirx.reinterpret(_FLOAT, tirx.reinterpret("int32", p) + exponent)


def _half_power(exponent: Any) -> Any:
    """2^(n - 1), which is a float32 for n = 128, too; 0 for n = -126."""
    return tirx.reinterpret(_FLOAT, exponent + 0x3F000000)


_FORMS = {"sigmoid": _sigmoid, "tanh": _tanh, "exp": _exp}
