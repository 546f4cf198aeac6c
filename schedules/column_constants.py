"""What of a stage's expressions is the same in all columns of a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edbatch_tvm.tvm_compat import structural_walk, tirx
from schedules import stage as ir
from schedules.weight_packing import uses


def constant_leaves(leaves: Mapping[Any, ir.Leaf], vectors: Sequence[Any], column: Any) -> set[Any]:
    """The variables of leaves that are the same in all columns; `vectors` are expressions of `column`."""

    def is_constant(leaf: ir.Leaf) -> bool:
        match leaf:
            case ir.Element():
                return not leaf.moving
            case ir.Vector(index):
                return not uses(vectors[index], column)
            case ir.RowCount() | ir.AttributeValue():
                return True
        return False

    return {variable for variable, leaf in leaves.items() if is_constant(leaf)}


def is_constant_line(line: ir.Line, constant: set[Any]) -> bool:
    """Whether the variable of `line` is the same in all columns, where those of `constant` are."""
    if isinstance(line, ir.Let | ir.Reduction):
        return constant.issuperset(variables_in(line.expression))
    return True


def variables_in(expression: Any) -> list[Any]:
    """The variables of an expression."""
    found: list[Any] = []
    structural_walk(expression, (tirx.Var, found.append))
    return found
