"""Which loops around a block of a cell run over elements that do not depend on each other."""

from __future__ import annotations

from typing import Any, NamedTuple

from edbatch_tvm.tvm_compat import SBlockRealize, TensorLoad, structural_equal, structural_walk, tirx

_SPATIAL = 0
"""The kind of an axis of a block whose elements are independent."""


class Nest(NamedTuple):
    """Loops around one block that stores one element.

    Attributes
    ----------
    independent : list of For
        Those over independent elements.
    others : list of For
        Those of a reduction, the outermost first.
    block : SBlockRealize
    """

    independent: list[Any]
    others: list[Any]
    block: Any


def nest_of(outermost: Any) -> Nest | None:
    """The loops from `outermost` on and their block; None if no loop is known to be independent."""
    loops = []
    inner = outermost
    while isinstance(inner, tirx.For):
        loops.append(inner)
        inner = inner.body
    if not isinstance(inner, SBlockRealize) or inner.block.alloc_buffers:
        return None
    variables = [one.loop_var for one in loops]
    values = list(inner.iter_values)
    plain = all(isinstance(value, tirx.Var | tirx.IntImm) for value in values)
    if not plain or any(_reads_any(part, variables) for one in loops for part in (one.min, one.extent)):
        return None
    spatial = {
        variables.index(value): one.var
        for one, value in zip(inner.block.iter_vars, values, strict=True)
        if int(one.iter_type) == _SPATIAL and value in variables
    }
    stores = [one for one in (inner.block.init, inner.block.body) if one is not None]
    used = [value for value in values if value in variables]
    if (
        not spatial
        or len(used) != len(set(used))
        or not all(_is_of_element(store, list(spatial.values())) for store in stores)
    ):
        return None
    others = [one for place, one in enumerate(loops) if place not in spatial]
    return Nest([loops[place] for place in spatial], others, inner)


def _is_of_element(store: Any, axes: list[Any]) -> bool:
    """Whether a statement stores another element for each value of the axes, and reads no other of that buffer."""
    if not isinstance(store, tirx.BufferStore):
        return False
    if not all(any(index.same_as(axis) for index in store.indices) for axis in axes):
        return False
    loads: list[Any] = []
    structural_walk(store.value, (TensorLoad, loads.append))
    return all(structural_equal(load.indices, store.indices) for load in loads if load.source.same_as(store.buffer))


def _reads_any(expression: Any, variables: list[Any]) -> bool:
    found: list[Any] = []
    structural_walk(expression, (tirx.Var, found.append))
    return any(variable in variables for variable in found)
