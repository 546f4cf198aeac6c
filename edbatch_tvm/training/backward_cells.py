"""The cells that backward graphs consist of: adjoint cells for a number of variadic rows, and sums of cotangents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tvm import IRModule, relax
from tvm.relax import op as R

from edbatch_tvm.graph.spec import CellSignature, Signature, ValueSpec
from edbatch_tvm.tvm_compat import TensorType, tirx
from relay_ext.gradients.adjoint_cells import AdjointCell, Source, WeightTerm
from relay_ext.gradients.reverse import bindings_of, emit_forward
from relay_ext.gradients.rules import Emitter
from relay_ext.gradients.unroll_rows import has_rows, unroll_rows
from relay_ext.signature import input_attrs, input_params, output_vars, weight_params

_MOST_UNROLLED = 8
"""Variadic rows that are computed one by one; code grows with them."""

NO_ROWS = 0
"""Of a node without variadic rows: its operand stays variadic, and what has a row for each of its rows is left out."""


@dataclass(frozen=True)
class BackwardCell:
    """The adjoint of a cell as a cell that can be compiled: what it returns has a fixed shape.

    Attributes
    ----------
    name : str
    function : relax.Function or None
        None if nothing is to be computed: all terms read operands and cotangents.
    values : tuple of int
        The outputs of the forward node that it reads.
    slots : tuple of (int or None)
        For each operand entry of the forward node, the output that is its gradient; None if it has none.
    terms : tuple of WeightTerm
        Their outputs are those of `function`.
    """

    name: str
    function: relax.Function | None
    values: tuple[int, ...]
    slots: tuple[int | None, ...]
    terms: tuple[WeightTerm, ...]


def backward_cell(cell: CellSignature, adjoint: AdjointCell, rows: int) -> BackwardCell:
    """The adjoint of `cell` for nodes with `rows` variadic rows; it does not matter where there are none.

    A cell and its adjoint for two rows::

        def join_adjoint(hs: (k, H), d: (H,)):  return broadcast_to(d, (k, H))

        def join_adjoint2(hs_row0: (H,), hs_row1: (H,), d: (H,)):  return d, d
    """
    name = f"{cell.name}_adjoint"
    if not cell.variadic_count:
        outputs = output_vars(adjoint.function)
        function = adjoint.function if outputs else None
        return BackwardCell(name, function, adjoint.values, adjoint.operands, adjoint.terms)
    if rows == NO_ROWS:
        return _without_rows(f"{name}0", cell, adjoint)
    made = _with_rows(f"{name}{rows}", cell, adjoint, rows, unroll=True) if rows <= _MOST_UNROLLED else None
    made = made or _with_rows(f"{name}{rows}", cell, adjoint, rows, unroll=False)
    assert made is not None
    return made


def sum_cell(spec: ValueSpec) -> relax.Function:
    """A cell that adds any number of values of `spec`."""
    parts = relax.Var("parts", TensorType((tirx.Var("k", "int64"), *spec.shape), spec.dtype))
    builder = relax.BlockBuilder()
    with builder.function("sum", [parts], {"num_input": 1}):
        with builder.dataflow():
            total = builder.emit_output(R.sum(parts, axis=[0]))
        builder.emit_func_output(total)
    return builder.finalize()["sum"]


def sum_name(arena: int) -> str:
    """The name of the cell that adds values of an arena of the forward signature."""
    return f"sum_of_cotangents{arena}"


def float_arenas(signature: Signature, cells: Signature) -> list[int]:
    """The arenas that outputs of `cells` lie in, which all have cotangents: `signature` is of cells that save more."""
    return sorted({signature.arena(spec) for cell in cells for spec in cell.outputs})


def _without_rows(name: str, cell: CellSignature, adjoint: AdjointCell) -> BackwardCell:
    function = adjoint.function
    outputs = output_vars(function)
    kept = [place for place, output in enumerate(outputs) if not has_rows(output)]
    variadic = {place for place, operand in enumerate(cell.operands) if operand.variadic}

    def dropped(source: Source | None) -> bool:
        if source is None:
            return False
        operand = source.kind == "operand" and source.number in variadic
        return operand or any(one not in kept for one in source.outputs()) or any(map(dropped, source.parts))

    slots = [
        None if place is None or place not in kept else kept.index(place)
        for operand, place in zip(cell.operands, adjoint.operands, strict=True)
        if not operand.variadic
    ]
    terms = [
        _moved(term, {place: number for number, place in enumerate(kept)})
        for term in adjoint.terms
        if not dropped(term.left) and not dropped(term.right)
    ]
    made = None
    if kept:
        builder = relax.BlockBuilder()
        emit = Emitter(builder)
        # The number of rows is a symbol of this function alone, as its variables are.
        copy = relax.utils.copy_with_new_vars(function)
        with builder.function(name, list(copy.params), input_attrs(function)):
            with builder.dataflow():
                known = emit_forward(emit, bindings_of(copy), {param: param for param in copy.params})
                fields = output_vars(copy)
                results = [builder.emit_output(known.get(fields[place], fields[place])) for place in kept]
            builder.emit_func_output(results[0] if len(results) == 1 else relax.Tuple(results))
        made = relax.transform.DeadCodeElimination([name])(builder.finalize())[name]
    return BackwardCell(name, made, adjoint.values, tuple(slots), tuple(terms))


def _moved(term: WeightTerm, places: Mapping[int, int | tuple[int, ...]]) -> WeightTerm:
    left = None if term.left is None else term.left.with_outputs(places)
    return replace(term, left=left, right=term.right.with_outputs(places))


def _with_rows(name: str, cell: CellSignature, adjoint: AdjointCell, rows: int, unroll: bool) -> BackwardCell | None:
    """The adjoint of a cell for `rows` variadic rows; `unroll`: row by row, None where that is not possible."""
    function = relax.utils.copy_with_new_vars(adjoint.function) if unroll else _bound(adjoint.function, rows)
    variadic = {operand.name for operand in cell.operands if operand.variadic}
    params: list[Any] = []
    known: dict[Any, Any] = {}
    for param in input_params(function):
        if param.name not in variadic:
            known[param] = relax.Var(param.name, param.ty)
            params.append(known[param])
            continue
        row = TensorType(list(param.ty.shape.values)[1:], param.ty.dtype)
        known[param] = [relax.Var(f"{param.name}_row{place}", row) for place in range(rows)]
        params += known[param]
    weights = {weight: relax.Var(weight.name, weight.ty) for weight in weight_params(function)}
    builder = relax.BlockBuilder()
    emit = Emitter(builder)
    attributes = input_attrs(function) | {"num_input": len(params)}
    renamed: dict[Any, Any] | None
    places: dict[int, int | tuple[int, ...]] = {}
    of_rows: dict[int, list[int]] = {}
    with builder.function(name, [*params, *weights.values()], attributes):
        with builder.dataflow():
            if unroll:
                renamed = unroll_rows(emit, bindings_of(function), known | weights, rows)
            else:
                known = {p: emit(R.stack(one, axis=0)) if isinstance(one, list) else one for p, one in known.items()}
                renamed = emit_forward(emit, bindings_of(function), known | weights)
            if renamed is None:  # TVM warns of a function that is not finished
                results = [params[0]]
            else:
                values = [renamed.get(output, output) for output in output_vars(function)]
                results, places, of_rows = _results(emit, cell, adjoint, rows, values)
            made = [builder.emit_output(one) for one in results]
        builder.emit_func_output(made[0] if len(made) == 1 else relax.Tuple(made))
    if renamed is None:
        return None
    slots: list[int | None] = []
    for operand, gradient in zip(cell.operands, adjoint.operands, strict=True):
        if operand.variadic:
            slots += [None] * rows if gradient is None else of_rows[gradient]
        else:
            place = None if gradient is None else places[gradient]
            assert not isinstance(place, tuple)
            slots.append(place)
    terms = tuple(_moved(term, places) for term in adjoint.terms)
    whole = relax.transform.DeadCodeElimination([name])(builder.finalize())
    return BackwardCell(name, whole[name] if results else None, adjoint.values, tuple(slots), terms)


def _results(
    emit: Emitter, cell: CellSignature, adjoint: AdjointCell, rows: int, values: Sequence[Any]
) -> tuple[list[Any], dict[int, int | tuple[int, ...]], dict[int, list[int]]]:
    """The outputs of an adjoint for a number of rows, their places, and those of each row of variadic gradients."""
    variadic = {place for operand, place in zip(cell.operands, adjoint.operands, strict=True) if operand.variadic}
    sources = [one for term in adjoint.terms for one in (term.left, term.right) if one is not None]
    in_terms = {place for source in sources for place in source.outputs()}
    places: dict[int, int | tuple[int, ...]] = {}
    of_rows: dict[int, list[int]] = {}
    results: list[Any] = []
    for place, value in enumerate(values):
        if isinstance(value, list) or place in variadic:
            of_rows[place] = list(range(len(results), len(results) + rows))
            results += value if isinstance(value, list) else [_row(emit, value, number) for number in range(rows)]
        if isinstance(value, list):
            places[place] = tuple(of_rows[place])
        elif place not in variadic or place in in_terms:
            places[place] = len(results)
            results.append(value)
    return results, places, of_rows


def _bound(function: relax.Function, rows: int) -> relax.Function:
    """`function` for a number of variadic rows."""
    symbols = {symbol.name for symbol in relax.analysis.defined_symbolic_vars(function)}
    module = IRModule({"adjoint": function.with_attr("global_symbol", "adjoint")})
    return relax.transform.BindSymbolicVars(dict.fromkeys(symbols, rows), "adjoint")(module)["adjoint"]


def _row(emit: Emitter, value: Any, number: int) -> Any:
    row = emit(R.strided_slice(value, [0], [number], [number + 1]))
    return emit(R.reshape(row, relax.ShapeExpr(list(value.ty.shape.values)[1:])))
