"""Which values of a cell its forward pass keeps for its adjoint, so that no product is computed twice.

An adjoint reads values of the forward pass: the result of a sigmoid, a factor of a product. What is cheap to compute
from operands, attributes, weights and outputs is computed again. Anything else is saved: it becomes one more output of
the forward cell, and an operand of the adjoint.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from tvm import relax

from edbatch_tvm.tvm_compat import Call, tirx
from relay_ext.gradients.reverse import bindings_of, emit_forward, made_of
from relay_ext.gradients.rules import Emitter, is_float, short_name
from relay_ext.op_table import ELEMENTWISE, ORDERED_VIEWS
from relay_ext.signature import output_vars, weight_params

_CHEAP = frozenset(name.removeprefix("relax.") for name in ELEMENTWISE | ORDERED_VIEWS) | frozenset(
    [
        *("astype", "equal", "greater", "greater_equal", "less", "less_equal", "not_equal"),
        *("broadcast_to", "concat", "full", "full_like", "logical_and", "logical_not", "logical_or", "nn.softplus"),
        *("ones", "split", "strided_slice", "take", "where", "zeros"),
    ]
)
"""Operators whose results are computed again: a few operations for each element of what is at hand."""


def saved_values(function: Any, needed: Iterable[Any], products: Collection[str] = ()) -> list[Any]:
    """The variables of a cell that are saved for an adjoint that reads the variables `needed`.

    Outputs of the cell are among them where they are read: they cost nothing, since they lie in arenas anyway.
    `products` are tables whose rows are products that the backward pass cannot read again.
    """
    bindings = bindings_of(function)
    value_of = dict(bindings)
    known = made_of(bindings, set(weight_params(function))) | set(function.params)
    outputs = {output for output in output_vars(function) if isinstance(output, relax.Var)} - known
    rows = {variable for variable, value in bindings if _is_row(value, products)}
    cheap = _cheap(bindings, known | outputs, rows)
    saved, seen, waiting = set(), set(known), list(needed)
    while waiting:
        variable = waiting.pop()
        if variable in seen or variable not in value_of:
            continue
        seen.add(variable)
        if _is_fixed(variable) and (variable in outputs or variable not in cheap):
            saved.add(variable)
        else:
            waiting.extend(relax.analysis.free_vars(value_of[variable]))
    # A product of two gates is cheap where both are saved, for reasons of their own.
    for variable, _ in reversed(bindings):
        if variable in saved - outputs and variable in _cheap(bindings, (known | outputs | saved) - {variable}, rows):
            saved.remove(variable)
    return [variable for variable, _ in bindings if variable in saved]


def _is_row(value: Any, tables: Collection[str]) -> bool:
    """Whether a value is read from one of some tables."""
    return isinstance(value, Call) and short_name(value) == "take" and getattr(value.args[0], "name", None) in tables


def _cheap(bindings: Sequence[tuple[Any, Any]], at_hand: set[Any], costly: Collection[Any]) -> set[Any]:
    """The variables that take little to compute from those at hand, without those that are known to be costly."""
    found = set(at_hand)
    for variable, value in bindings:
        if variable in costly:
            continue
        few = not isinstance(value, Call) or short_name(value) in _CHEAP
        if few and all(one in found for one in relax.analysis.free_vars(value)):
            found.add(variable)
    return found - at_hand


def _is_fixed(variable: Any) -> bool:
    """Whether a variable can be an output of a cell: a tensor of floats, of a shape that is known."""
    return is_float(variable) and all(isinstance(extent, tirx.IntImm) for extent in variable.ty.shape.values)


def with_outputs(name: str, function: Any, more: Sequence[Any]) -> Any:
    """A cell that returns variables of its own after its outputs."""
    if not more:
        return function
    new = {param: relax.Var(param.name, param.ty) for param in function.params}
    builder = relax.BlockBuilder()
    attributes = {} if function.attrs is None else dict(function.attrs.items())
    attributes.pop("global_symbol", None)
    with builder.function(name, list(new.values()), attributes):
        with builder.dataflow():
            renamed = emit_forward(Emitter(builder), bindings_of(function), new)
            results = [renamed.get(one, one) for one in (*output_vars(function), *more)]
            made = [builder.emit_output(result) for result in results]
        builder.emit_func_output(relax.Tuple(made))
    return builder.finalize()[name]
