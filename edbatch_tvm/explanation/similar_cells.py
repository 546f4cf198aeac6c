"""Cells that do the same and yet never share a batch, for their shapes or their weights differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import IRModule, relax

from edbatch_tvm.tvm_compat import TensorType, tirx
from relay_ext.signature import cell_functions, input_params, weight_params


@dataclass(frozen=True)
class Alike:
    """A cell of the same operators.

    Attributes
    ----------
    cell : str
        The other cell.
    differs : str
        ``shape`` or ``weights``: what keeps the two apart.
    detail : str
        The first difference.
    """

    cell: str
    differs: str
    detail: str


def alike_cells(mod: IRModule) -> dict[str, list[Alike]]:
    """For every cell of `mod`, the other cells that call the same operators in the same order on the same inputs.

    Nodes of two such cells never run in one batch: their shapes differ, or they read other weights.
    """
    cells = cell_functions(mod)
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, function in cells.items():
        groups.setdefault(_form(function), []).append(name)
    found: dict[str, list[Alike]] = {name: [] for name in cells}
    for names in groups.values():
        for name in names:
            found[name] = [_difference(cells[name], other, cells[other]) for other in names if other != name]
    return found


def _form(function: relax.Function) -> tuple[Any, ...]:
    """What a cell does, without shapes and names."""
    number = {param: index for index, param in enumerate(function.params)}
    lines: list[tuple[Any, ...]] = []

    def show(expression: Any) -> Any:
        if isinstance(expression, relax.Var):
            return number.setdefault(expression, len(number))
        if isinstance(expression, relax.Tuple):
            return tuple(map(show, expression.fields))
        if isinstance(expression, relax.TupleGetItem):
            return show(expression.tuple_value), int(expression.index)
        if isinstance(expression, relax.Call):
            return _operator(expression), tuple(map(show, expression.args))
        return expression.name_hint if isinstance(expression, tvm.ir.GlobalVar) else type(expression).__name__

    body = function.body
    if isinstance(body, relax.SeqExpr):
        for block in body.blocks:
            lines.extend((number.setdefault(b.var, len(number)), show(b.value)) for b in block.bindings)
        body = body.body
    inputs = len(input_params(function))
    return inputs, len(function.params), *lines, show(body)


def _operator(call: relax.Call) -> str:
    """The operator of a call and its attributes; the function that ``call_tir`` calls is one of its arguments."""
    called = getattr(call.op, "name", type(call.op).__name__)
    return called if call.attrs is None else f"{called} {call.attrs}"


def _difference(function: relax.Function, name: str, other: relax.Function) -> Alike:
    for mine, its in zip(function.params, other.params, strict=True):
        if str(mine.ty) != str(its.ty):
            return Alike(name, "shape", f"{mine.name} is {_type(mine)} here, {_type(its)} there")
    weights = zip(weight_params(function), weight_params(other), strict=True)
    pairs = [(mine.name, its.name) for mine, its in weights if mine.name != its.name]
    detail = f"weight {pairs[0][0]} here, {pairs[0][1]} there" if pairs else "the bodies differ in constants"
    return Alike(name, "weights", detail)


def _type(param: Any) -> str:
    if not isinstance(param.ty, TensorType) or param.ty.shape is None:
        return str(param.ty)
    extents = [str(int(extent)) if isinstance(extent, tirx.IntImm) else "k" for extent in param.ty.shape.values]
    return f"{param.ty.dtype}[{','.join(extents)}]"
