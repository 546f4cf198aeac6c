"""Small questions about TIR expressions that stage detection asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm

from edbatch_tvm.tvm_compat import Call, TensorLoad, structural_map, structural_walk, sym, tirx
from relay_ext.block_reader import NotReadable


def static_extents(buffer: Any, extents: Sequence[Any]) -> tuple[int, ...]:
    """`extents`, some of those of `buffer`, as numbers.

    Raises
    ------
    NotReadable
        If its shape is symbolic.
    """
    if not all(isinstance(extent, tirx.IntImm) for extent in extents):
        raise NotReadable(f"{buffer.name!r} has the symbolic shape {buffer.shape}")
    return tuple(map(int, extents))


def flat_index(extents: Sequence[int], indices: Sequence[Any]) -> Any:
    """Position of the element at `indices` in the row-major order of a value with these extents."""
    index: Any = tirx.const(0, "int64")
    for position, (extent, at) in enumerate(zip(extents, indices, strict=True)):
        index = at if position == 0 else index * extent + at
    return index


def indices_at(extents: Sequence[int], position: Any) -> list[Any]:
    """The indices of the element at `position` of the row-major order of a value with these extents."""
    indices: list[Any] = []
    for extent in reversed(extents):
        indices.append(tirx.floormod(position, extent))
        position = tirx.floordiv(position, extent)
    return indices[::-1]


def as_affine(analyzer: sym.Analyzer, index: Any, variables: Sequence[Any]) -> tuple[int, tuple[int, ...]] | None:
    """``(c, (a, b, ...))`` if index is c + a * x + b * y + ... of `variables` with constants a, b, c, else None."""
    strides = []
    for variable in variables:
        step = analyzer.simplify(substitute(index, {variable: variable + 1}) - index)
        if not isinstance(step, tirx.IntImm):
            return None
        strides.append(int(step))
    rest = index
    for variable, stride in zip(variables, strides, strict=True):
        rest = rest - variable * stride
    rest = analyzer.simplify(rest)
    return (int(rest), tuple(strides)) if isinstance(rest, tirx.IntImm) else None


def as_condition(value: Any) -> tuple[Any, Any, Any] | None:
    """``(condition, then, otherwise)`` if `value` is a choice, else None."""
    if isinstance(value, tirx.Select):
        return value.condition, value.true_value, value.false_value
    if isinstance(value, Call) and getattr(value.op, "name", "") == "prim.if_then_else":
        return value.args[0], value.args[1], value.args[2]
    return None


def range_of(variable: Any, low: int, high: int) -> tvm.ir.Range:
    """``[low, high)`` as numbers of the variable's dtype."""
    dtype = str(variable.ty.dtype)
    return tvm.ir.Range(tirx.const(low, dtype), tirx.const(high, dtype))


def change_point(test: Any, k: Any, low: int, high: int) -> tuple[bool, bool, int] | None:
    """Where `test`, a function of k that changes once in [low, high), changes: (before, after, first k after)."""

    def holds(start: int, stop: int, expected: bool) -> bool:
        analyzer = sym.Analyzer()
        analyzer.bind(k, range_of(k, start, stop))
        return bool(analyzer.can_prove(test if expected else tirx.Not(test)))

    first, last = holds(low, low + 1, True), holds(high - 1, high, True)
    if first == last:
        return (first, first, high) if holds(low, high, first) else None
    left, right = low, high - 1
    while right - left > 1:
        middle = (left + right) // 2
        if holds(middle, middle + 1, True) == first:
            left = middle
        else:
            right = middle
    proved = holds(low, right, first) and holds(right, high, last)
    return (first, last, right) if proved else None


def substitute(expression: Any, values: dict[Any, Any]) -> Any:
    """`expression` with variables replaced."""
    if not values:
        return expression

    def replace(variable: Any) -> Any:
        return values.get(variable, variable)

    return structural_map(expression, (tirx.Var, replace))


def calls_in(expression: Any) -> list[Any]:
    """All calls in an expression."""
    found: list[Any] = []
    structural_walk(expression, (Call, _keep(found)))
    return found


def _keep(found: list[Any]) -> Callable[[Any], None]:
    def keep(node: Any) -> None:
        found.append(node)

    return keep


def buffers_read(expression: Any) -> list[Any]:
    """Buffers read by `expression`, those read for an index included."""
    found: list[Any] = []
    structural_walk(expression, (TensorLoad, _keep(found)))
    return list(dict.fromkeys(load.source for load in found))


def outer_loads(expression: Any) -> list[Any]:
    """Loads of `expression` that stand outside the index of another load; one may stand in such an index as well."""
    found: list[Any] = []

    def keep(load: Any) -> Any:
        if not any(load.same_as(other) for other in found):
            found.append(load)
        return tirx.Var("load", load.ty.dtype)  # what was replaced is not looked into

    structural_map(expression, (TensorLoad, keep), order="pre")
    return found


def depends_on(expression: Any, variable: Any) -> bool:
    """True if `variable` occurs in `expression`."""
    found: list[Any] = []
    structural_walk(expression, (tirx.Var, _keep(found)))
    return any(other.same_as(variable) for other in found)


def below(index: Any, variable: Any, extent: Any) -> Any:
    """`index` with remainders and quotients by a symbolic `extent` taken, where `variable` is less than it.

    ``(extent * i + variable) % extent`` is `variable`, and the quotient is ``i``.
    """

    def split(total: Any) -> tuple[list[Any], list[Any]]:
        """The terms that `extent` divides, divided, and the others."""
        match total:
            case tirx.Add(a=a, b=b):
                (left, others), (right, more) = split(a), split(b)
                return left + right, others + more
            case tirx.Mul(a=a, b=b) if b.same_as(extent):
                return [a], []
            case tirx.Mul(a=a, b=b) if a.same_as(extent):
                return [b], []
        return [], [total]

    def taken(node: Any) -> Any:
        if not node.b.same_as(extent):
            return node
        quotients, rest = split(node.a)
        if len(rest) > 1 or not all(term.same_as(variable) for term in rest):
            return node
        if isinstance(node, tirx.FloorMod):
            return rest[0] if rest else tirx.const(0, node.ty.dtype)
        total: Any = tirx.const(0, node.ty.dtype)
        for quotient in quotients:
            total = total + quotient
        return total

    return structural_map(index, [(tirx.FloorMod, taken), (tirx.FloorDiv, taken)], order="post")
