"""Gradients of operators that work element by element."""

from __future__ import annotations

import math
from typing import Any

from tvm import relax
from tvm.relax import op as R

from relay_ext.gradients.rules import Emitter, Gradients, dtype_of, is_float, number, rule

# One tensor -----------------------------------------------------------------------------------------------------


def _derivative(name: str, derivative: Any) -> None:
    """Register an operator whose gradient is g * f'(x), by a function of x, the result y and a maker of constants."""

    @rule(name)
    def gradient(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
        x = call.args[0]
        return [emit(R.multiply(g, derivative(x, result, lambda value: number(value, x))))]


_derivative("abs", lambda x, y, c: R.sign(x))
_derivative("exp", lambda x, y, c: y)
_derivative("sigmoid", lambda x, y, c: y * (c(1) - y))
_derivative("tanh", lambda x, y, c: c(1) - y * y)
_derivative("cos", lambda x, y, c: c(-1) * R.sin(x))
_derivative("sin", lambda x, y, c: R.cos(x))
_derivative("tan", lambda x, y, c: c(1) + y * y)
_derivative("cosh", lambda x, y, c: R.sinh(x))
_derivative("sinh", lambda x, y, c: R.cosh(x))
_derivative("asin", lambda x, y, c: R.rsqrt(c(1) - x * x))
_derivative("acos", lambda x, y, c: c(-1) * R.rsqrt(c(1) - x * x))
_derivative("asinh", lambda x, y, c: R.rsqrt(x * x + c(1)))
_derivative("acosh", lambda x, y, c: R.rsqrt(x * x - c(1)))
_derivative("square", lambda x, y, c: c(2) * x)
_derivative("rsqrt", lambda x, y, c: c(-0.5) * (y * y * y))
_derivative("erf", lambda x, y, c: c(2 / math.sqrt(math.pi)) * R.exp(c(-1) * (x * x)))


def _quotient(name: str, divisor: Any) -> None:
    """Register an operator whose gradient is g divided by a function of x, the result y and a maker of constants."""

    @rule(name)
    def gradient(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
        x = call.args[0]
        return [emit(R.divide(g, divisor(x, result, lambda value: number(value, x))))]


_quotient("log", lambda x, y, c: x)
_quotient("sqrt", lambda x, y, c: c(2) * y)
_quotient("atan", lambda x, y, c: x * x + c(1))
_quotient("atanh", lambda x, y, c: c(1) - x * x)


@rule("negative")
def _negative(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    return [emit(R.negative(g))]


@rule("ceil", "floor", "round", "sign", "trunc")
def _steps(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    return [emit.full(call.args[0], 0.0)]


@rule("nn.relu")
def _relu(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    return [emit(R.where(R.less_equal(result, number(0, result)), number(0, result), g))]


@rule("nn.leakyrelu")
def _leaky_relu(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    x = call.args[0]
    slope = number(float(call.attrs.alpha), x)
    return [emit(R.where(R.greater(x, number(0, x)), g, g * slope))]


@rule("clip")
def _clip(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    x = call.args[0]
    low, high = (number(float(bound.value), x) for bound in call.args[1:3])
    inside = R.logical_and(R.greater_equal(x, low), R.less_equal(x, high))
    return [emit(R.where(inside, g, number(0, x))), *[None] * (len(call.args) - 1)]


@rule("nn.silu")
def _silu(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    x = call.args[0]
    one, s = number(1, x), emit(R.sigmoid(x))
    return [emit(g * (s * (one + x * (one - s))))]


@rule("nn.gelu")
def _gelu(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    x = call.args[0]
    half = number(0.5, x)
    below = half * (number(1, x) + R.erf(x * number(math.sqrt(0.5), x)))
    density = number(1 / math.sqrt(2 * math.pi), x) * R.exp(number(-0.5, x) * (x * x))
    return [emit(g * (below + x * density))]


@rule("nn.gelu_tanh")
def _gelu_tanh(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    x = call.args[0]
    a, b = math.sqrt(2 / math.pi), 0.044715
    t = emit(R.tanh(number(a, x) * (x + number(b, x) * (x * x * x))))
    inner = number(a, x) + number(3 * a * b, x) * (x * x)
    one, half = number(1, x), number(0.5, x)
    return [emit(g * (half * (one + t) + half * x * (one - t * t) * inner))]


@rule("nn.softplus")
def _softplus(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    x = call.args[0]
    scaled = emit(x * number(float(call.attrs.beta), x))
    linear = R.greater(scaled, number(float(call.attrs.threshold), x))
    return [emit(R.where(linear, g, g * R.sigmoid(scaled)))]


@rule("astype")
def _astype(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    return [emit(R.astype(g, dtype_of(call.args[0]))) if is_float(call.args[0]) else None]


# Two tensors ----------------------------------------------------------------------------------------------------


def _binary(name: str, gradients: Any) -> None:
    """Register an operator by a function of x, y, the result, g and a maker of constants: the two gradients."""

    @rule(name)
    def gradient(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
        x, y = call.args
        found = gradients(x, y, result, g, lambda value: number(value, result))
        return [emit.fit(one, like) for one, like in zip(found, (x, y), strict=True)]


def _ties(wins: Any) -> Any:
    """The gradients of the larger or smaller of two: those that are equal share it."""

    def gradients(x: Any, y: Any, z: Any, g: Any, c: Any) -> tuple[Any, Any]:
        shared = R.where(R.equal(x, y), g * c(0.5), g)
        return R.where(wins(y, x), c(0), shared), R.where(wins(x, y), c(0), shared)

    return gradients


def _power(x: Any, y: Any, z: Any, g: Any, c: Any) -> tuple[Any, Any]:
    base = g * (y * R.power(x, y - c(1)))
    # x ** 0 is 1 everywhere; 0 ** y is 0 for every y > 0.
    flat = R.logical_and(R.equal(x, c(0)), R.greater_equal(y, c(0)))
    return R.where(R.equal(y, c(0)), c(0), base), g * R.where(flat, c(0), z * R.log(x))


_binary("add", lambda x, y, z, g, c: (g, g))
_binary("subtract", lambda x, y, z, g, c: (g, R.negative(g)))
_binary("multiply", lambda x, y, z, g, c: (g * y, g * x))
_binary("divide", lambda x, y, z, g, c: (R.divide(g, y), R.negative(g) * R.divide(R.divide(x, y), y)))
_binary("maximum", _ties(R.greater))
_binary("minimum", _ties(R.less))
_binary("power", _power)
_binary("mod", lambda x, y, z, g, c: (g, R.negative(g) * R.trunc(R.divide(x, y))))
_binary("floor_mod", lambda x, y, z, g, c: (g, R.negative(g) * R.floor(R.divide(x, y))))


@rule("where")
def _where(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    condition, yes, no = call.args
    zero = number(0, result)
    return [None, emit.fit(R.where(condition, g, zero), yes), emit.fit(R.where(condition, zero, g), no)]


@rule(
    *("equal", "greater", "greater_equal", "less", "less_equal", "not_equal"),
    *("logical_and", "logical_or", "logical_not", "logical_xor", "isfinite", "isinf", "isnan"),
    *("argmax", "argmin", "zeros_like", "ones_like", "full_like", "one_hot", "zeros", "ones", "full", "arange"),
)
def _none(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    return [[None] * len(one.fields) if isinstance(one, relax.Tuple) else None for one in call.args]
