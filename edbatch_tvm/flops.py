"""What the cells of a module contract: the multiply-adds of each cell and the fan-in of each weight."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from tvm import relax

from edbatch_tvm.errors import CellError
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.tvm_compat import tirx
from relay_ext.signature import cell_functions


@dataclass
class Contractions:
    """What one walk over a cell finds.

    Attributes
    ----------
    multiply_adds : int
        Multiply-adds of the matrix products of one call, as written, without those of variadic rows.
    row_multiply_adds : int
        Multiply-adds of the products of each variadic row.
    fan_in : dict
        By parameter name: the extent that a factor of a product is summed over; of a table that is looked up in, 1 for
        a table of vectors, which add nothing up, and the columns of a matrix for a table of matrices.
    """

    multiply_adds: int = 0
    row_multiply_adds: int = 0
    fan_in: dict[str, int] = field(default_factory=dict)


def contractions(name: str, function: Any) -> Contractions:
    """Walk the cell `function`, called `name`.

    Raises
    ------
    CellError
        If an extent other than the number of variadic rows is symbolic: the work of a call then depends on the call.
    """
    found = Contractions()

    def visit(expression: Any) -> None:
        if not isinstance(expression, relax.Call) or not hasattr(expression.op, "name"):
            return
        if expression.op.name == "relax.matmul":
            left, right = expression.args
            _, shape = _rows(name, right)
            inner = shape[0] if len(shape) == 1 else shape[-2]
            by_row, rest = _rows(name, expression)
            if by_row:
                found.row_multiply_adds += inner * prod(rest)
            else:
                found.multiply_adds += inner * prod(rest)
            for factor in (left, right):
                if isinstance(factor, relax.Var):
                    found.fan_in[factor.name] = inner
        elif expression.op.name == "relax.take" and isinstance(expression.args[0], relax.Var):
            table = expression.args[0]
            _, shape = _rows(name, table)
            found.fan_in[table.name] = shape[-1] if len(shape) > 2 else 1

    relax.analysis.post_order_visit(function, visit)
    return found


def multiply_adds(mod: Any) -> dict[str, int]:
    """Multiply-adds of the matrix products of one call of each cell, as written, without those of variadic rows."""
    return {name: contractions(name, function).multiply_adds for name, function in cell_functions(mod).items()}


def multiply_adds_of_graph(mod: Any, graph: InstanceGraph) -> int:
    """Multiply-adds of the matrix products of all calls in `graph`, as written.

    Parameters
    ----------
    mod : tvm.IRModule
    graph : InstanceGraph
        Of the cells of `mod`.
    """
    assert graph.signature is not None
    found = [contractions(name, function) for name, function in cell_functions(mod).items()]
    calls = np.array([one.multiply_adds for one in found]) @ graph.type_count
    operands = np.bincount(graph.node_type, np.diff(graph.operand_ptr), len(found))
    rows = 0
    for type_id, (cell, one) in enumerate(zip(graph.signature, found, strict=True)):
        if one.row_multiply_adds:
            variadic = operands[type_id] - cell.fixed_arity * graph.type_count[type_id]
            rows += one.row_multiply_adds * int(variadic) // cell.variadic_count
    return int(calls) + rows


def _rows(cell: str, expression: Any) -> tuple[bool, tuple[int, ...]]:
    """Whether `expression` has variadic rows, and its other extents."""
    shape = list(expression.ty.shape)
    by_row = bool(shape) and isinstance(shape[0], tirx.Var)
    rest = shape[by_row:]
    if not all(isinstance(extent, tirx.IntImm) for extent in rest):
        raise CellError(f"cell {cell!r} has a product of symbolic shape {expression.ty.shape}", "fixed extents")
    return by_row, tuple(map(int, rest))
