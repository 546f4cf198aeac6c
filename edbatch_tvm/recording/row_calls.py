"""Calls of cells that treat rows alike, recorded as one call a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from edbatch_tvm.recording.lazy import LazyTensor, lazy_rows, lazy_value
from edbatch_tvm.recording.recorded_parameters import own_parameter
from edbatch_tvm.recording.rows import POINTWISE, RowByRow
from edbatch_tvm.recording.specs import TensorSpec, spec_of
from edbatch_tvm.recording.storages import resolved

if TYPE_CHECKING:
    from edbatch_tvm.recording.cell_call import CellCall
    from edbatch_tvm.recording.recorder import Recorder
    from edbatch_tvm.recording.site import Site


def row_by_row(
    recorder: Recorder, site: Site, arguments: tuple[Any, ...], how: RowByRow, caller: CellCall | None
) -> Any:
    """Record a call of a cell that treats rows alike as one call a row."""
    columns: list[list[Any]] = []
    count = 0
    for argument, by_rows in zip(arguments, how.by_rows, strict=True):
        if by_rows:
            columns.append(_rows_one_by_one(recorder, argument))
            count = len(columns[-1])
        else:
            columns.append([argument])
    calls = []
    for number in range(count):
        given = tuple(column[number] if by else column[0] for column, by in zip(columns, how.by_rows, strict=True))
        calls.append(pytree.tree_leaves(recorder.call(site, given, caller)))
    if how.returned is POINTWISE:
        if not calls:
            return _no_rows(recorder, site, arguments)
        row = calls[0][0].spec
        values = [recorder.value_of(leaves[0]) for leaves in calls]
        return lazy_rows(recorder, values, spec_of(row.shape[1:], row.dtype))
    outputs, structure = how.returned
    made = []
    for place, spec in enumerate(outputs):
        values = [recorder.value_of(leaves[place]) for leaves in calls]
        made.append(lazy_rows(recorder, values, spec_of(spec.shape[1:], spec.dtype)))
    return pytree.tree_unflatten(made, structure)


def _no_rows(recorder: Recorder, site: Site, arguments: tuple[Any, ...]) -> Any:
    """What an operator that works element by element makes of no rows."""
    given = [torch.empty(one.shape, dtype=one.dtype) if type(one) is LazyTensor else one for one in arguments]
    plain = len(given) - len(site.named)
    result = site.target(*given[:plain], **dict(zip(site.named, given[plain:], strict=True)))
    return lazy_rows(recorder, [], spec_of(result.shape[1:], result.dtype))


def _rows_one_by_one(recorder: Recorder, argument: Any) -> list[Any]:
    """The rows of a tensor as tensors of one row."""
    if type(argument) is not LazyTensor:
        return list(own_parameter(argument).split(1)) if len(argument) else []
    if not len(argument):
        return []
    rows, values = resolved(recorder, argument)
    if isinstance(rows, TensorSpec):  # described like an ordinary tensor that was taken row by row
        return list(argument.split(1))
    spec = spec_of((1, *rows.row.shape), rows.row.dtype)
    return [lazy_value(recorder, value, spec) for value in values]
