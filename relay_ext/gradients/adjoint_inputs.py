"""An adjoint as one function, and what its parameters are."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from tvm import relax

from edbatch_tvm.tvm_compat import TensorType, tirx
from relay_ext.gradients.adjoint_cells import AdjointCell, Source
from relay_ext.gradients.reverse import bindings_of, emit_forward
from relay_ext.gradients.row_softmax import without_row_softmax
from relay_ext.gradients.rules import Emitter, is_float
from relay_ext.signature import ATTRIBUTES, input_params, is_attribute, output_vars, weight_params


class WholeAdjoint:
    """An adjoint as one function, before it is cut into sections.

    A value that two nodes read has two cotangents. Where `pairs` has the output, the adjoint takes both, and adds them
    itself::

        def cell_adjoint(y, d_output0):
            return d_output0 * (1 - y * y)

        def cell_adjoint(y, d_output0, d_output0_more):
            d = d_output0 + d_output0_more
            return d * (1 - y * y)

    Attributes
    ----------
    function : relax.Function
    bindings : list of (Var, expression)
    sources : dict of Var to Source
        For each parameter that is not a weight. The second cotangent of an output is its part 1.
    weights : list of Var
    outputs : list of Var
    """

    def __init__(self, adjoint: AdjointCell, pairs: Collection[int] = ()) -> None:
        function = without_row_softmax(adjoint.function)
        sources = dict(_sources(function, adjoint))
        if pairs:
            function, sources = _with_pairs(function, sources, pairs)
        self.function = function
        self.sources = sources
        self.bindings = bindings_of(function)
        self.weights = weight_params(function)
        self.outputs = output_vars(function)

    def used(self) -> tuple[Any, dict[Any, Source]]:
        """The function without the parameters that it does not read, and the sources of those that it does."""
        read = set(relax.analysis.free_vars(self.function.body))
        sources = {param: source for param, source in self.sources.items() if param in read} or self.sources
        floats = [param.name for param in sources if is_attribute(self.function, param) and is_float(param)]
        attributes = {"num_input": len(sources)} | ({ATTRIBUTES: floats} if floats else {})
        params = [*sources, *self.weights]
        function = relax.Function(params, self.function.body, self.function.ret_ty, self.function.is_pure)
        return function.with_attrs(attributes), sources


def has_rows(variable: Any) -> bool:
    """Whether a value, or the fields of a tuple, have a row for each of the variadic rows."""
    return any(shape and not isinstance(shape[0], tirx.IntImm) for shape in shapes_of(variable))


def shapes_of(variable: Any) -> list[list[Any]]:
    """The shape of a value, or those of the fields of a tuple."""
    fields = [variable.ty] if isinstance(variable.ty, TensorType) else getattr(variable.ty, "fields", ())
    return [list(ty.shape.values) for ty in fields if isinstance(ty, TensorType)]


def can_pair(adjoint: AdjointCell) -> list[int]:
    """The outputs of which an adjoint may take two cotangents: sums over nodes do not read them as rows."""
    sides = [side for term in adjoint.terms for side in (term.left, term.right) if side is not None]
    read = {leaf.number for side in sides for leaf in _leaves(side) if leaf.kind == "cotangent"}
    return [place for place in range(adjoint.outputs) if place not in read]


def _leaves(source: Source) -> Iterator[Source]:
    if not source.parts:
        yield source
    for part in source.parts:
        yield from _leaves(part)


def _sources(function: Any, adjoint: AdjointCell) -> Iterator[tuple[Any, Source]]:
    params = input_params(function)
    values = [Source("value", slot) for slot in adjoint.values]
    own = len(params) - len(values) - adjoint.outputs
    operand = attribute = 0
    for param in params[:own]:
        if is_attribute(function, param):
            yield param, Source("attribute", attribute)
            attribute += 1
        else:
            yield param, Source("operand", operand)
            operand += 1
    others = [*values, *(Source("cotangent", place) for place in range(adjoint.outputs))]
    yield from zip(params[own:], others, strict=True)


def _with_pairs(function: Any, sources: dict[Any, Source], pairs: Collection[int]) -> tuple[Any, dict[Any, Source]]:
    """The function with two cotangents of some outputs."""
    new = {param: relax.Var(param.name, param.ty) for param in function.params}
    found = {new[param]: source for param, source in sources.items()}
    builder = relax.BlockBuilder()
    emit = Emitter(builder)
    more = {
        param: relax.Var(f"{param.name}_more", param.ty)
        for param, source in sources.items()
        if source.kind == "cotangent" and source.number in pairs
    }
    found |= {one: Source("cotangent", sources[param].number, part=1) for param, one in more.items()}
    names = [param.name for param in sources if is_attribute(function, param) and is_float(param)]
    attributes = {"num_input": len(found)} | ({ATTRIBUTES: names} if names else {})
    with builder.function("adjoint", [*found, *(new[param] for param in weight_params(function))], attributes):
        with builder.dataflow():
            known = new | {param: emit(new[param] + one) for param, one in more.items()}
            renamed = emit_forward(emit, bindings_of(function), known)
            made = [builder.emit_output(renamed.get(one, one)) for one in output_vars(function)]
        builder.emit_func_output(made[0] if len(made) == 1 else relax.Tuple(made))
    return builder.finalize()["adjoint"], found
