"""What the cells of a module contract: the multiply-adds of each cell and the fan-in of each weight."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

from tvm import relax

from edbatch_tvm.errors import CellError
from relay_ext.signature import cell_functions


@dataclass
class Contractions:
    """What one walk over a cell finds.

    Attributes
    ----------
    multiply_adds : int
        Multiply-adds of the matrix products of one call, as written.
    fan_in : dict
        By weight name: the rows of a matrix that is multiplied from the left, 1 for a table that is looked up in.
    """

    multiply_adds: int = 0
    fan_in: dict[str, int] = field(default_factory=dict)


def contractions(name: str, function: Any) -> Contractions:
    """Walk the cell `function`, called `name`.

    Raises
    ------
    CellError
        If the extents of a product are symbolic: the work of a call then depends on the call.
    """
    found = Contractions()

    def visit(expression: Any) -> None:
        if not isinstance(expression, relax.Call) or not hasattr(expression.op, "name"):
            return
        if expression.op.name == "relax.matmul":
            right = expression.args[1]
            shape = _shape(name, right)
            inner = shape[0] if len(shape) == 1 else shape[-2]
            found.multiply_adds += inner * prod(_shape(name, expression))
            if isinstance(right, relax.Var):
                found.fan_in[right.name] = inner
        elif expression.op.name == "relax.take" and isinstance(expression.args[0], relax.Var):
            found.fan_in[expression.args[0].name] = 1

    relax.analysis.post_order_visit(function, visit)
    return found


def multiply_adds(mod: Any) -> dict[str, int]:
    """Multiply-adds of the matrix products of one call of each cell, as written."""
    return {name: contractions(name, function).multiply_adds for name, function in cell_functions(mod).items()}


def _shape(cell: str, expression: Any) -> tuple[int, ...]:
    shape = expression.ty.shape
    try:
        return tuple(int(extent) for extent in shape)
    except TypeError:
        raise CellError(f"cell {cell!r} has a product of symbolic shape {shape}", "fixed extents") from None
