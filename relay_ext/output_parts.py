"""Outputs that are several values side by side, ``torch.cat([h, c], -1)``: a stage writes each as a part of the row."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

from edbatch_tvm.tvm_compat import sym, tirx
from relay_ext.block_reader import Compute
from relay_ext.stage_inputs import StageInputs
from relay_ext.tir_expressions import (
    as_condition,
    buffers_read,
    calls_in,
    change_point,
    depends_on,
    indices_at,
    outer_loads,
    range_of,
    substitute,
)

_MOST = 8
"""Parts of an output. Each width is a stage; a row of more parts would take many."""


def parts_of(inputs: StageInputs, buffer: Any) -> list[tuple[int, int]]:
    """The columns ``[begin, end)`` of the parts of an output; none if it is one, or no product is part of it.

    A part ends where a condition on the column changes.
    """
    extents = inputs.extents(buffer)
    if sum(extent > 1 for extent in extents) != 1 or inputs.is_reduced(buffer) or not inputs.is_looped(buffer):
        return []
    columns = prod(extents)
    borders = sorted(_borders(inputs, buffer, columns) | {0, columns})
    return list(pairwise(borders)) if 2 < len(borders) <= _MOST + 1 else []


def _borders(inputs: StageInputs, buffer: Any, columns: int) -> set[int]:
    column = tirx.Var("j", "int64")
    analyzer = sym.Analyzer()
    analyzer.bind(column, range_of(column, 0, columns))
    found: set[int] = set()
    seen: set[tuple[Any, str]] = set()

    def look(buffer: Any, indices: list[Any]) -> None:
        definition = inputs.definitions.get(buffer)
        key = buffer, str(indices)
        if not isinstance(definition, Compute) or key in seen:
            return
        seen.add(key)
        value = substitute(definition.value, dict(zip(definition.iters, indices, strict=True)))
        for node in [value, *calls_in(value)]:
            condition = as_condition(node)
            if condition is None or not depends_on(condition[0], column):
                continue
            change = None if any(True for _ in buffers_read(condition[0])) else change_point(
                analyzer.simplify(condition[0]), column, 0, columns
            )  # fmt: skip
            if change is not None and change[2] < columns:
                found.add(change[2])
        for load in outer_loads(value):
            at = [analyzer.simplify(index) for index in load.indices]
            if any(depends_on(index, column) for index in at):
                look(load.source, at)

    indices = indices_at(inputs.extents(buffer), column)
    axis = inputs.row_axis(buffer)
    if axis is not None:
        indices.insert(axis, tirx.Var("p", "int64"))
    look(buffer, indices)
    return found
