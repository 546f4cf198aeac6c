"""Calls of cells that treat rows alike, recorded as one call a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from edbatch_tvm.recording.arguments import FEW
from edbatch_tvm.recording.describe import described
from edbatch_tvm.recording.empty_results import EmptyResult
from edbatch_tvm.recording.lazy import LazyTensor, lazy_rows, lazy_value
from edbatch_tvm.recording.recorded_parameters import own_parameter
from edbatch_tvm.recording.rows import AGAIN, POINTWISE, RowByRow, leaves_of, with_leaves
from edbatch_tvm.recording.specs import RowsSpec, TensorSpec, rows_of, spec_of
from edbatch_tvm.recording.storages import resolved

if TYPE_CHECKING:
    from edbatch_tvm.recording.cell_call import CellCall
    from edbatch_tvm.recording.recorder import Recorder
    from edbatch_tvm.recording.site import Site

_MARK = -(1 << 60)
"""Numbers from here on stand for the values of rows in the description of a call of one row."""


def row_by_row(
    recorder: Recorder, site: Site, arguments: tuple[Any, ...], how: RowByRow, caller: CellCall | None
) -> Any:
    """Record a call of a cell that treats rows alike as one call a row."""
    lists = not site.integers_vary
    leaves = leaves_of(arguments, lists)
    columns = [
        _values_of_rows(recorder, leaf, at) for leaf, at in zip(leaves, how.by_rows, strict=True) if at is not None
    ]
    count = len(columns[0])
    for column in columns:
        if len(column) != count:
            return _as_one_node(recorder, site, arguments)  # of the same shapes, but another kind
    if not count:
        return _of_no_rows(recorder, site, arguments, how)
    if how.node is not None:
        type_id, places, returned = how.node
        return _recorded(recorder, type_id, [columns[place] for place in places], count, (), returned)

    def one(place: int | None) -> tuple[Any, ...]:
        """The arguments of the call of one row; of one that stands for each, if `place` is None."""
        given, number = [], 0
        for leaf, at in zip(leaves, how.by_rows, strict=True):
            if at is None:
                given.append(leaf)
            else:
                value = _MARK - number if place is None else columns[number][place]
                given.append(lazy_value(recorder, value, _row_spec(leaf, at)))
                number += 1
        return tuple(with_leaves(arguments, iter(given), lists))

    made = _known(recorder, site, one(None))
    if made is None:
        first = recorder.call(site, one(0), caller)
        if first is AGAIN:
            return first
        calls = [pytree.tree_leaves(first)]
        calls += [pytree.tree_leaves(recorder.call(site, one(place), caller)) for place in range(1, count)]
        rows, structure = _returned(how, leaves, [leaf.spec for leaf in calls[0]])
        values = [[recorder.value_of(leaf) for leaf in column] for column in zip(*calls, strict=True)]
        return _stacked(recorder, values, rows, structure)
    node, operands, attributes = made
    type_id, outputs, _ = node
    returned = _returned(how, leaves, outputs)
    if all(operand <= _MARK for operand in operands) and not attributes:
        how.node = type_id, [_MARK - operand for operand in operands], returned
        if count == 1:
            _learn_one(recorder, site, arguments, node, [columns[place][0] for place in how.node[1]], returned)
    every = [columns[_MARK - operand] if operand <= _MARK else repeat(operand, count) for operand in operands]
    return _recorded(recorder, type_id, every, count, attributes, returned)


def _learn_one(
    recorder: Recorder, site: Site, arguments: Any, node: Any, values: list[int], returned: tuple[list[RowsSpec], Any]
) -> None:
    """Let calls like this one, which has one row, be known as one node; what they return is still a list of rows."""
    key, operands, attributes = described(recorder, arguments, site.integers_vary)
    if operands == values and not attributes:
        rows, structure = returned

        def of_one(recorder: Recorder, value: int) -> Any:
            return _stacked(recorder, [[value + place] for place in range(len(rows))], rows, structure)

        site.learn(key, (node[0], node[1], of_one))


def _recorded(
    recorder: Recorder, type_id: int, columns: Any, count: int, attributes: Any, returned: tuple[list[RowsSpec], Any]
) -> Any:
    """Record a node for every row, and make what the call returns."""
    rows, structure = returned
    width = len(rows)
    value = _append(recorder, type_id, columns, count, [*attributes] * count, width)
    stop = value + count * width
    return _stacked(recorder, [list(range(value + place, stop, width)) for place in range(width)], rows, structure)


def _stacked(recorder: Recorder, values: list[list[int]], rows: list[RowsSpec], structure: Any) -> Any:
    made = [lazy_rows(recorder, own, row.row, row.at) for own, row in zip(values, rows, strict=True)]
    return made[0] if structure is None else pytree.tree_unflatten(made, structure)


def _returned(how: RowByRow, leaves: list[Any], outputs: Sequence[TensorSpec]) -> tuple[list[RowsSpec], Any]:
    """What a call returns, given what that of one row returns; the structure of one tensor is None."""
    if how.returned is not POINTWISE:
        rows, structure = how.returned
        return rows, None if structure.is_leaf() else structure
    rank = len(outputs[0].shape)
    at = next(at for leaf, at in zip(leaves, how.by_rows, strict=True) if at is not None and leaf.dim() == rank)
    return [rows_of(_without(outputs[0], at), at)], None


def _as_one_node(recorder: Recorder, site: Site, arguments: tuple[Any, ...]) -> Any:
    found = recorder.library.as_one_node(recorder, site, arguments)
    if isinstance(found, EmptyResult):
        return found.returned([])
    cell, operands, attributes = found
    type_id, outputs, returned = cell.made
    return returned(recorder, _append(recorder, type_id, [[one] for one in operands], 1, attributes, len(outputs)))


def _append(
    recorder: Recorder,
    type_id: int,
    columns: Sequence[Iterable[int]],
    count: int,
    attributes: Sequence[Any],
    outputs: int,
) -> int:
    """Record nodes of a known cell, given the values of each operand and all attributes; the first of their values."""
    recorder.types += [type_id] * count
    width, end = len(columns), len(recorder.operands)
    recorder.operands += chain.from_iterable(zip(*columns))  # noqa: B905, some do not end
    recorder.ends += range(end + width, end + width * count + 1, width) if width else [end] * count
    if attributes:
        recorder.attributes[type_id] += attributes
    value = recorder.recorded
    recorder.recorded = value + outputs * count
    return value


def _without(spec: TensorSpec, at: int) -> TensorSpec:
    """A spec without one dimension."""
    return spec_of((*spec.shape[:at], *spec.shape[at + 1 :]), spec.dtype)


def _known(recorder: Recorder, site: Site, arguments: tuple[Any, ...]) -> Any:
    """What recording a call takes, and its operands and attributes; None if calls like this are not known as nodes."""
    key, operands, attributes = described(recorder, arguments, site.integers_vary)
    step: Any = site.steps
    last = None
    for part in key:
        if type(part) is tuple and part[0] == FEW:
            last = part
        else:
            step = step.get(part)
            if step is None:
                return None
    made = step.get(last)
    return None if made is None or made[0] < 0 else (made, operands, attributes)


def _of_no_rows(recorder: Recorder, site: Site, arguments: tuple[Any, ...], how: RowByRow) -> Any:
    if how.returned is not POINTWISE:
        rows, structure = how.returned
        return pytree.tree_unflatten([lazy_rows(recorder, [], row.row, row.at) for row in rows], structure)
    given = [torch.empty(one.shape, dtype=one.dtype) if type(one) is LazyTensor else one for one in arguments]
    plain = len(given) - len(site.named)
    result = site.target(*given[:plain], **dict(zip(site.named, given[plain:], strict=True)))
    at = list(result.shape).index(0)
    return lazy_rows(recorder, [], _without(spec_of(result.shape, result.dtype), at), at)


def _row_spec(tensor: Any, at: int) -> TensorSpec:
    """That of a row of a tensor, which has an extent of 1 in the dimension of the rows."""
    shape = tensor.shape
    return spec_of((*shape[:at], 1, *shape[at + 1 :]), tensor.dtype)


def _values_of_rows(recorder: Recorder, argument: Any, at: int) -> list[int]:
    """The values of the rows of a tensor."""
    if type(argument) is LazyTensor and argument.recorder is recorder:
        held = argument.held
        if held is not None and argument.geometry is held.whole:
            known = held.spec
            if known is not None and known.at == at:
                return held.rows
        if not argument.shape[at]:
            return []
        rows, values = resolved(recorder, argument)
        if type(rows) is RowsSpec and rows.at == at:
            return values
    # An ordinary tensor, or one that is described like an ordinary one that was taken row by row.
    if argument.shape[at] == 1:
        return [recorder.value_of(argument)]
    if type(argument) is LazyTensor:
        return [recorder.value_of(part) for part in argument.split(1, at)]
    return recorder.outside.numbers(own_parameter(argument), at)
