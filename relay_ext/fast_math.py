"""Pass 5: sigmoid, tanh and exp of float32 as short polynomials that vectorise.

LLVM calls libm once a lane for these functions; a rational polynomial costs a few vector instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import tvm
import tvm_ffi
from tvm import IRModule, tirx

_FLOAT = "float32"

# Rational approximation of tanh on [-9, 9] by an odd polynomial over an even one, as used by Eigen and XLA; largest
# absolute error 3.3e-7. Coefficients from the highest power down.
_TANH_LIMIT = 9.0
_TANH_ODD = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
_TANH_EVEN = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)

# exp(x) = 2^n * exp(r), r = x - n ln 2 in [-ln 2 / 2, ln 2 / 2]; polynomial of the Cephes library, relative error 2e-7.
_EXP_LOW, _EXP_HIGH = -87.3, 88.3
_LOG2_E = 1.44269504088896341
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_EXP = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)


@tvm.transform.module_pass(opt_level=0, name="FastMath")
class FastMath:
    """Replace float32 ``T.sigmoid``, ``T.tanh`` and ``T.exp`` in every PrimFunc.

    Before::

        y[j] = T.sigmoid(x[j])

    After::

        y[j] = 0.5 + 0.5 * (odd(0.5 * x[j]) / even(0.5 * x[j]))

    Largest absolute errors against float64: tanh 3.3e-7, sigmoid 1.5e-7; exp: largest relative error 2e-7, and
    arguments above 88.3 give exp(88.3), below -87.3 exp(-87.3). TVM's ``relax.transform.FastMathTransform`` works on
    Relax operators and leaves sigmoid and user-written TIR as they are.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        functions = {}
        for var, function in mod.functions.items():
            if isinstance(function, tirx.PrimFunc):
                function = function.with_body(tvm_ffi.structural_map(function.body, (tvm.ir.Call, _replace)))
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
    return tirx.max(tirx.min(x, _const(high)), _const(low))


def _let(value: Any, body: Callable[[Any], Any]) -> Any:
    """``let v = value in body(v)``: without it the expression tree would repeat `value` at every use."""
    variable = tirx.Var("v", _FLOAT)
    return tirx.Let(variable, value, body(variable))


def _tanh(x: Any) -> Any:
    def ratio(x: Any) -> Any:
        return _let(x * x, lambda square: x * _polynomial(square, _TANH_ODD) / _polynomial(square, _TANH_EVEN))

    return _let(_clamp(x, -_TANH_LIMIT, _TANH_LIMIT), ratio)


def _sigmoid(x: Any) -> Any:
    half = _const(0.5)
    return half + half * _tanh(half * x)


def _exp(x: Any) -> Any:
    def scaled(x: Any, n: Any) -> Any:
        power = tirx.reinterpret(_FLOAT, (tirx.Cast("int32", n) + 127) << 23)
        remainder = x - n * _const(_LN2_HIGH) - n * _const(_LN2_LOW)
        return _let(remainder, lambda r: (_polynomial(r, _EXP) * r * r + r + _const(1.0)) * power)

    def split(x: Any) -> Any:
        return _let(tirx.floor(x * _const(_LOG2_E) + _const(0.5)), lambda n: scaled(x, n))

    return _let(_clamp(x, _EXP_LOW, _EXP_HIGH), split)


_FORMS = {"sigmoid": _sigmoid, "tanh": _tanh, "exp": _exp}
