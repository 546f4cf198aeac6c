"""Stage detection: cut a fused cell where a contraction consumes the result of another.

A cell whose blocks are element-wise code, contractions, and reductions over variadic rows becomes a list of
:class:`schedules.stage.Stage`. LSTM and TreeLSTM cells are one stage; a GRU, whose second product reads ``r * h``, is
two; a child-sum TreeLSTM is three: the sum of its children's h, the forget gates over its children, and the rest. A
cell outside this form is :class:`~relay_ext.block_reader.NotReadable` with the reason, and takes the general path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any, TypeVar

from edbatch_tvm.tvm_compat import tirx
from relay_ext.block_reader import Compute, NotReadable
from relay_ext.output_parts import parts_of
from relay_ext.stage_epilogue import Group, StageTracer, Target
from relay_ext.stage_inputs import STAGE_DTYPES, StageInputs
from relay_ext.tir_expressions import buffers_read, depends_on
from relay_ext.unroll_reductions import EVERY, SHORT
from schedules import stage as ir

Found = TypeVar("Found")


def find_stages(
    function: tirx.PrimFunc,
    variadic: tuple[bool, ...],
    is_operand: tuple[bool, ...],
    dtypes: tuple[str, ...] = STAGE_DTYPES,
    whole_rows: bool = True,
) -> list[ir.Stage]:
    """The stages of a fused cell, in the order they run.

    Parameters
    ----------
    function : PrimFunc
        A cell as FuseCells leaves it.
    variadic, is_operand : tuple of bool
        For each per-instance parameter.
    dtypes : tuple of str
        What a stage of the target may compute in.
    whole_rows : bool
        Whether the target has stages with column reductions.

    Raises
    ------
    NotReadable
        If the cell is not made of stages; the message says why.
    """
    forms = [(True, True), (True, False), (False, False)] if whole_rows else [(False, False)]
    reasons: list[NotReadable] = []
    for unrolled in ((), EVERY if whole_rows else SHORT):
        for rows, values in forms:
            found = _attempt(partial(_form, function, variadic, is_operand, dtypes, rows, values, unrolled))
            if not isinstance(found, NotReadable):
                return found
            reasons.append(found)
    raise reasons[min(1, len(reasons) - 1)]


def _form(function: tirx.PrimFunc, *options: Any) -> list[ir.Stage]:
    return _stages(StageInputs(function, *options))


def _attempt(find: Callable[[], Found]) -> Found | NotReadable:
    """What `find` returns, or why it finds nothing."""
    try:
        return find()
    except NotReadable as reason:
        return reason


def _stages(inputs: StageInputs) -> list[ir.Stage]:
    groups: dict[tuple[int, ir.Domain, int, int, str], Group] = {}

    def place(buffer: Any, slot: int, scratch: str, part: tuple[int, int] | None = None) -> None:
        rows, columns = _shape(inputs, buffer) if part is None else (1, part[1] - part[0])
        dtype = str(buffer.dtype)
        if dtype not in inputs.dtypes:
            raise NotReadable(f"{buffer.name!r} is {dtype}, stages compute in {' or '.join(inputs.dtypes)}")
        key = (inputs.level(buffer), inputs.domain(buffer), rows, columns, dtype)
        begin = None if part is None else part[0]
        groups.setdefault(key, Group(*key)).targets.append(Target(buffer, slot, scratch, begin))

    for slot, buffer in enumerate(inputs.outputs):
        parts = parts_of(inputs, buffer)
        for part in parts:
            place(buffer, slot, "", part)
        if not parts:
            place(buffer, slot, "")
    for buffer, name in inputs.scratch.items():
        place(buffer, -1, name)
    ordered = [groups[key] for key in sorted(groups)]
    return [_trace(inputs, group, f"{inputs.cell}_stage{n}") for n, group in enumerate(ordered)]


def _trace(inputs: StageInputs, group: Group, name: str) -> ir.Stage:
    """The stage of `group`, over as few columns and rows as it needs.

    Where earlier stages took all column reductions, one column is enough. What cannot be computed as one long row is
    computed as a matrix, where it is one.
    """
    shapes = {inputs.extents(target.buffer) for target in group.targets}
    tries = [group]
    if any(target.begin is not None for target in group.targets):
        return StageTracer(inputs, group, name).stage()
    if any(inputs.is_reduced(target.buffer) for target in group.targets):
        if all(prod(extents) == group.rows for extents in shapes):
            tries.insert(0, replace(group, columns=1))
    elif group.rows == 1 and len(shapes) == 1:
        (extents,) = shapes
        if len(extents) > 1:
            tries.append(replace(group, rows=prod(extents[:-1]), columns=extents[-1]))
        heads = {prod(inputs.extents(buffer)) for buffer in inputs.definitions if inputs.is_row_value(buffer)}
        divided = [count for count in heads if count > 1 and group.columns % count == 0]
        tries += [replace(group, rows=count, columns=group.columns // count) for count in divided]
    reason = NotReadable(name)
    for one in tries:
        found = _attempt(StageTracer(inputs, one, name).stage)
        if not isinstance(found, NotReadable):
            return found
        reason = found
    raise reason


def _shape(inputs: StageInputs, buffer: Any) -> tuple[int, int]:
    """Rows and columns that a stage computes `buffer` in: one row, unless a product of matrices is part of it.

    With column reductions, the columns are what they run over.
    """
    if inputs.is_reduced(buffer):
        span = inputs.span(buffer)
        return prod(span[:-1]), prod(span[-1:])
    extents = inputs.extents(buffer)
    if sum(extent > 1 for extent in extents) > 1 and _has_matrix_product(inputs, buffer, inputs.level(buffer)):
        return prod(extents[:-1]), extents[-1]
    return 1, prod(extents)


def _has_matrix_product(inputs: StageInputs, buffer: Any, level: int) -> bool:
    """Whether the stage of `level` that computes `buffer` computes a product whose value moves with its axes, too."""
    if buffer in inputs.scratch and inputs.level(buffer) < level:
        return False
    definition = inputs.definitions.get(buffer)
    if isinstance(definition, Compute):
        return any(_has_matrix_product(inputs, other, level) for other in buffers_read(definition.value))
    if definition is None or inputs.is_row_reduction(definition) or inputs.is_column_reduction(buffer):
        return False
    found = inputs.contraction(buffer, definition)
    axes = [v for v, e in zip(definition.iters, buffer.shape, strict=True) if isinstance(e, tirx.IntImm) and int(e) > 1]
    positions = [segment.position for segments in found.values for segment in segments]
    return len(axes) > 1 and any(depends_on(position, axis) for position in positions for axis in axes)
