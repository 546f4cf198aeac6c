"""Weights, parts of weights, and what cells compute from weights alone: what sums over nodes are gradients of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import IRModule, relax

from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.errors import CellError
from edbatch_tvm.tvm_compat import Call
from relay_ext.gradients.reverse import Reverse, emit_forward
from relay_ext.gradients.rules import Emitter, is_float, short_name
from relay_ext.gradients.views import permuted_axes, sliced_places


@dataclass(frozen=True)
class WeightExpression:
    """A weight, or what a cell computes from weights alone.

    Attributes
    ----------
    weights : tuple of str
        The weights in it.
    pullback : relax.Function or None
        A function of these weights and of the gradient of the expression: the gradients of the weights, a tuple. None
        if the expression is a weight or a part of one.
    part : tuple of slice
        The part of the weight that the expression is, axis by axis; all of it where there are no slices.
    """

    weights: tuple[str, ...]
    pullback: relax.Function | None
    part: tuple[slice, ...] = ()

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of an expression that has a pullback."""
        assert self.pullback is not None
        return tuple(int(extent) for extent in self.pullback.params[-1].ty.shape.values)

    @cached_property
    def _views(self) -> list[tuple[str, tuple[int, ...]]] | None:
        """The transpositions and reshapes that the pullback consists of, in turn; None if it does anything else."""
        assert self.pullback is not None
        bindings = [binding for block in self.pullback.body.blocks for binding in block.bindings]
        values: dict[Any, Any] = {binding.var: binding.value for binding in bindings}
        result = values.get(self.pullback.body.body)
        if not isinstance(result, relax.Tuple) or len(result.fields) != 1:
            return None
        found, variable = [], result.fields[0]
        while not variable.same_as(self.pullback.params[-1]):
            value = values.get(variable)
            if not isinstance(value, Call) or short_name(value) not in ("permute_dims", "reshape"):
                return None
            if short_name(value) == "reshape":
                found.append(("reshape", tuple(int(extent) for extent in variable.ty.shape.values)))
            else:
                found.append(("transpose", permuted_axes(value)))
            variable = value.args[0]
        return found[::-1]

    def as_view(self, gradient: np.ndarray) -> np.ndarray | None:
        """The gradient of the only weight as a view of that of the expression; None where the pullback computes."""
        if self._views is None:
            return None
        for name, numbers in self._views:
            gradient = getattr(gradient, name)(numbers)
        return gradient


def expression_key(
    cell: str, variable: Any, bindings: Sequence[Any], weights: Sequence[Any], known: dict[str, WeightExpression]
) -> str:
    """The key of an expression of weights, which is added to those that are known."""
    if variable in weights:
        known.setdefault(variable.name, WeightExpression((variable.name,), None))
        return str(variable.name)
    part = _part(variable, dict(bindings), weights)
    if part is not None:
        key = f"{part.weights[0]}[{', '.join(f'{one.start}:{one.stop}:{one.step}' for one in part.part)}]"
        known[key] = part
        return key
    key = f"{cell}.{[var for var, _ in bindings].index(variable)}"
    if key not in known:
        known[key] = _pullback(key, variable, bindings, weights)
    return key


def _part(variable: Any, values: Mapping[Any, Any], weights: Sequence[Any]) -> WeightExpression | None:
    """A slice of a weight, or of a slice of one, as an expression; None for anything else."""
    slices = []
    while variable not in weights:
        value = values.get(variable)
        if not isinstance(value, Call) or short_name(value) != "strided_slice":
            return None
        slices.append(sliced_places(value))
        variable = value.args[0]
    places = [range(int(extent)) for extent in variable.ty.shape.values]
    for one in reversed(slices):
        for axis, some in one.items():
            places[axis] = places[axis][some.start : some.stop if some.stop >= 0 else None : some.step]
    if any(one.step < 1 for one in places):
        return None
    return WeightExpression((variable.name,), None, tuple(slice(one.start, one.stop, one.step) for one in places))


def _pullback(key: str, variable: Any, bindings: Sequence[Any], weights: Sequence[Any]) -> WeightExpression:
    """An expression of weights and how its gradient becomes theirs."""
    needed, wanted = [], {variable}
    for var, value in reversed(bindings):
        if var in wanted:
            needed.append((var, value))
            wanted |= set(relax.analysis.free_vars(value))
    used = [weight for weight in weights if weight in wanted and is_float(weight)]
    new = {weight: relax.Var(weight.name, weight.ty) for weight in weights if weight in wanted}
    gradient = relax.Var("gradient", variable.ty)
    builder = relax.BlockBuilder()
    emit = Emitter(builder)
    with builder.function("pullback", [*new.values(), gradient]):
        with builder.dataflow():
            reverse = Reverse(emit, emit_forward(emit, needed[::-1], new), set())
            reverse.add(variable, gradient)
            reverse.sweep(needed[::-1])
            totals = [reverse.total(weight) for weight in used]
            if not any(total is not None for total in totals):
                raise CellError(
                    f"{key!r}, of which no weight has a gradient", "an expression that can be differentiated"
                )
            totals = [emit.full(new[w], 0.0) if one is None else one for w, one in zip(used, totals, strict=True)]
            result = builder.emit_output(relax.Tuple(totals))
        builder.emit_func_output(result)
    return WeightExpression(tuple(weight.name for weight in used), tidy(builder.finalize(), "pullback"))


def tidy(mod: IRModule, name: str) -> relax.Function:
    """The function without what it does not need and what it would compute twice."""
    mod = relax.transform.EliminateCommonSubexpr()(mod)
    return relax.transform.DeadCodeElimination([name])(mod)[name]
