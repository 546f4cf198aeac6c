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

    A sum of two products has both inside: TVM then says which of them is fused with the addition. LLVM would decide it
    by the loops around, and tiles of other sizes would give other bits.
    """
    if stage.whole_rows:
        return stage
    lines = {line.variable: line for line in stage.body}
    uses = Counter(v for one in (*stage.body, *stage.outputs) for v in variables_in(one.expression))
    inside: set[Any] = set()

    def alone(value: Any) -> Any:
        """The expression of a variable that is read once; None for anything else."""
        line = lines.get(value) if isinstance(value, tirx.Var) else None
        return line.expression if isinstance(line, ir.Let) and uses[value] == 1 else None

    def activation(value: Any) -> Any:
        found = alone(value)
        if not isinstance(found, Call) or getattr(found.op, "name", "") not in _ACTIVATIONS:
            return value
        inside.add(value)
        return found

    def product(node: Any) -> Any:
        return activation(node.a) * activation(node.b)

    def total(node: Any) -> Any:
        terms = [one if isinstance(one, tirx.Mul) else alone(one) for one in (node.a, node.b)]
        if not all(isinstance(term, tirx.Mul) for term in terms):
            return node
        inside.update(one for one in (node.a, node.b) if isinstance(one, tirx.Var))
        return tirx.Add(*terms)

    def rewritten(one: Any) -> Any:
        # The expression of a reduction is computed for each variadic row.
        if isinstance(one, ir.Let | ir.Output):
            with_products = structural_map(one.expression, (tirx.Mul, product))
            return replace(one, expression=structural_map(with_products, (tirx.Add, total)))
        return one

    for variable, line in lines.items():
        lines[variable] = rewritten(line)
    outputs = tuple(rewritten(output) for output in stage.outputs)
    return replace(stage, body=tuple(line for line in lines.values() if line.variable not in inside), outputs=outputs)
