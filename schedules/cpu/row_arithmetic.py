"""Cheaper arithmetic for stages with column reductions, with what is the same in all columns of a row.

A vector division takes as long as several multiplications, and soft-max and normalisation divide a whole row by one
number. An exponential of what is not positive needs no test for overflow.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edbatch_tvm.tvm_compat import Call, structural_equal, structural_map, tirx
from schedules import stage as ir
from schedules.column_constants import constant_leaves, is_constant_line, variables_in

_EXPONENT = {"float32": 64, "float64": 512}
"""The reciprocal is of a number between 2 to the power -e and 2 to the power e."""


def with_cheap_arithmetic(stage: ir.Stage) -> ir.Stage:
    """`stage` with what every column divides by inverted once for the row, and with bounds of exponents.

    Before::

        t0 = max over j: x;  y0 = exp(x - t0);  t1 = sum over j: y0
        output 0 = y0 / t1

    After::

        t0 = max over j: x;  y0 = exp(min(x - t0, 0));  t1 = sum over j: y0
        scale = 2^64 if |t1| < 2^-64 else 2^-64 if |t1| > 2^64 else 1
        inverse = 1 / (t1 * scale)                           # once for each row
        output 0 = y0 * inverse * scale

    The scale keeps the reciprocal of a tiny number from becoming infinite, and that of a huge one from losing bits.
    NaN, infinities and zeros give what the quotient gives. The minimum changes nothing; it tells
    :mod:`schedules.cpu.fast_math` that no exponential overflows.
    """
    constant = constant_leaves(stage.leaves, stage.vectors, stage.column)
    body: list[ir.Line] = []
    inverses: dict[str, tuple[Any, Any]] = {}
    lets: dict[Any, Any] = {}
    maxima: dict[Any, Any] = {}

    def quotient(node: Any) -> Any:
        if str(node.ty.dtype) not in _EXPONENT or isinstance(node.b, tirx.FloatImm):
            return node
        if not constant.issuperset(variables_in(node.b)) or constant.issuperset(variables_in(node.a)):
            return node
        key = str(node.b)
        if key not in inverses:
            inverses[key] = _inverse(node.b, len(inverses), body)
            constant.update(inverses[key])
        inverse, scale = inverses[key]
        return node.a * inverse * scale

    def bounded(call: Any) -> Any:
        if getattr(call.op, "name", "") != "tirx.exp" or not _is_below_maximum(call.args[0], lets, maxima):
            return call
        return tirx.exp(tirx.min(call.args[0], tirx.const(0, str(call.ty.dtype))))

    def cheaper(expression: Any) -> Any:
        return structural_map(structural_map(expression, (Call, bounded)), (tirx.Div, quotient))

    for line in stage.body:
        # What is computed for each variadic row has values of its own for each of them.
        of_rows = isinstance(line, ir.Reduction | ir.RowValue)
        expression = line.expression if of_rows else cheaper(line.expression)
        body.append(replace(line, expression=expression))
        if is_constant_line(line, constant):
            constant.add(line.variable)
        if isinstance(line, ir.Let):
            lets[line.variable] = line.expression
        elif isinstance(line, ir.ColumnReduction) and line.combine == "max":
            maxima[line.variable] = line.expression
    outputs = [replace(output, expression=cheaper(output.expression)) for output in stage.outputs]
    return replace(stage, body=tuple(body), outputs=tuple(outputs))


def _is_below_maximum(value: Any, lets: dict[Any, Any], maxima: dict[Any, Any]) -> bool:
    """Whether `value` is ``x - t``, where t is the maximum of x over the columns; `lets` define its variables."""
    value = lets.get(value, value) if isinstance(value, tirx.Var) else value
    match value:
        case tirx.Add(a=x, b=tirx.Mul(a=most, b=tirx.FloatImm(value=-1.0))) | tirx.Sub(a=x, b=most):
            return isinstance(most, tirx.Var) and most in maxima and structural_equal(maxima[most], x)
    return False


def _inverse(divisor: Any, number: int, body: list[ir.Line]) -> tuple[Any, Any]:
    """The variables of the reciprocal of `divisor` and of its scale, which lines of `body` compute."""
    dtype = str(divisor.ty.dtype)
    power = 2.0 ** _EXPONENT[dtype]
    d, scale, inverse = (tirx.Var(f"{name}{number}", dtype) for name in ("divisor", "scale", "inverse"))
    small, large = (tirx.const(value, dtype) for value in (1 / power, power))
    one = tirx.const(1, dtype)
    tiny = tirx.And(d < small, tirx.const(-1 / power, dtype) < d)
    huge = tirx.Or(large < d, d < tirx.const(-power, dtype))
    body.append(ir.Let(d, divisor))
    body.append(ir.Let(scale, tirx.Select(tiny, large, tirx.Select(huge, small, one))))
    body.append(ir.Let(inverse, one / (d * scale)))
    return inverse, scale
