"""Activations in the products that they are part of, for which :mod:`schedules.cpu.fast_math` has shorter code."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from edbatch_tvm.tvm_compat import Call, structural_map, tirx
from schedules import stage as ir
from schedules.column_constants import variables_in

_ACTIVATIONS = ("tirx.sigmoid", "tirx.tanh")


def with_gated_products(stage: ir.Stage) -> ir.Stage:
    """`stage` with sigmoids and tanhs that one product reads, and nothing else, inside this product.

    Before::

        y0 = sigmoid(x0);  y1 = tanh(x1);  y2 = y0 * y1

    After::

        y2 = sigmoid(x0) * tanh(x1)
    """
    if stage.whole_rows:
        return stage
    lines = {line.variable: line for line in stage.body}
    uses = Counter(v for one in (*stage.body, *stage.outputs) for v in variables_in(one.expression))
    inside: set[Any] = set()

    def activation(value: Any) -> Any:
        line = lines.get(value) if isinstance(value, tirx.Var) else None
        if not isinstance(line, ir.Let) or uses[value] > 1 or not isinstance(line.expression, Call):
            return value
        if getattr(line.expression.op, "name", "") not in _ACTIVATIONS:
            return value
        inside.add(value)
        return line.expression

    def product(node: Any) -> Any:
        return activation(node.a) * activation(node.b)

    def rewritten(one: Any) -> Any:
        # The expression of a reduction is computed for each variadic row.
        if isinstance(one, ir.Let | ir.Output):
            return replace(one, expression=structural_map(one.expression, (tirx.Mul, product)))
        return one

    body = [rewritten(line) for line in stage.body]
    outputs = tuple(rewritten(output) for output in stage.outputs)
    return replace(stage, body=tuple(line for line in body if line.variable not in inside), outputs=outputs)
