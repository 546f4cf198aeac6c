"""Calls of cells that treat rows alike, recorded as one call a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from edbatch_tvm.recording import strided_storage
from edbatch_tvm.recording.arguments import FEW, number_of
from edbatch_tvm.recording.call_fast_paths import returned_of
from edbatch_tvm.recording.describe import described
from edbatch_tvm.recording.empty_gradients import as_called
from edbatch_tvm.recording.empty_results import EmptyResult
from edbatch_tvm.recording.fused_rows import order_of
from edbatch_tvm.recording.lazy import LazyTensor, geometry_of, lazy_rows, lazy_value
from edbatch_tvm.recording.recorded_parameters import own_parameter
from edbatch_tvm.recording.row_choices import grid_of, joined_rows
from edbatch_tvm.recording.rows import AGAIN, POINTWISE, STAND_IN, RowByRow, leaves_of, row_spec, with_leaves
from edbatch_tvm.recording.specs import GridSpec, RowsSpec, TensorSpec, rows_of, spec_of
from edbatch_tvm.recording.storages import resolved

if TYPE_CHECKING:
    from edbatch_tvm.recording.cell_call import CellCall
    from edbatch_tvm.recording.recorder import Recorder
    from edbatch_tvm.recording.site import Site


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
        return as_called(recorder, site, arguments, _of_no_rows(recorder, site, arguments, how))
    of_lists = [_length(column[0]) for column in columns]
    if how.node is not None and how.lists == of_lists:
        type_id, places, attribute_places, returned = how.node
        integers = _interleaved([columns[place] for place in attribute_places])
        values = [_of_all(recorder, columns, leaves, place) for place in places]
        return _recorded(recorder, type_id, values, count, integers, returned)

    width = len(columns)
    # Attributes of the rows that were described, and the columns that they are of.
    shown: dict[int, tuple[int, torch.Tensor]] = {}

    def one(place: int | None) -> tuple[Any, ...]:
        """The arguments of the call of one row; of one that stands for each, if `place` is None."""
        given, number = [], 0
        for leaf, at in zip(leaves, how.by_rows, strict=True):
            if at is None:
                given.append(leaf)
                continue
            value = columns[number][place or 0]
            if type(value) is list:
                of_list = [STAND_IN - number - width * n for n in range(len(value))] if place is None else list(value)
                given.append(_list_of_row(recorder, leaf, at, of_list))
                number += 1
                continue
            if leaf.dtype is torch.int64 and not isinstance(value, torch.Tensor):
                value = leaf.narrow(at, place or 0, 1)
            if isinstance(value, torch.Tensor):
                shown[id(value)] = number, value
                given.append(value)
            else:
                value = STAND_IN - number if place is None else value
                given.append(lazy_value(recorder, value, row_spec(leaf, at)))
            number += 1
        return tuple(with_leaves(arguments, iter(given), lists))

    # A row that is a list of lists itself is a call of its own, perhaps with another number of operands.
    made = None if -1 in of_lists else _known(recorder, site, one(None))
    if made is None:
        first = recorder.call(site, one(0), caller)
        if first is AGAIN:
            return first
        calls = [pytree.tree_leaves(first)]
        calls += [pytree.tree_leaves(recorder.call(site, one(place), caller)) for place in range(1, count)]
        rows, structure = _returned(how, leaves, [leaf.spec for leaf in calls[0]])
        parts = zip(zip(*calls, strict=True), rows, strict=True)
        whole = [_joined(recorder, list(column), row) for column, row in parts]
        return _arranged(whole, structure)
    node, operands, attributes = made
    type_id, outputs, _ = node
    returned = _returned(how, leaves, outputs)
    attribute_places = [shown[id(own)][0] if id(own) in shown else -1 for own in attributes]
    known = None if -1 in attribute_places else _places(recorder, how, leaves, operands, of_lists)
    if known is not None:
        how.node, how.lists = (type_id, known, attribute_places, returned), of_lists
        if how.operation is not None and not any(of_lists) and not attributes and len(outputs) == 1:
            how.order = order_of(leaves, how.by_rows, known) if returned[1] is None else None
            how.operation.known = how if how.order is not None else None
        if count == 1 and not attributes and not any(of_lists):
            of_one = [next(iter(_of_all(recorder, columns, leaves, place))) for place in known]
            _learn_one(recorder, site, arguments, node, of_one, returned)
    every = [
        repeat(operand, count) if operand > STAND_IN else _of_all(recorder, columns, leaves, STAND_IN - operand)
        for operand in operands
    ]
    of_all = zip(attributes, attribute_places, strict=True)
    integers = _interleaved([columns[place] if place >= 0 else [number_of(own)] * count for own, place in of_all])
    return _recorded(recorder, type_id, every, count, integers, returned)


def _places(
    recorder: Recorder, how: RowByRow, leaves: list[Any], operands: list[int], of_lists: list[int]
) -> list[int] | None:
    """Where the operands of a row's node come from, see :attr:`RowByRow.node`; None if that is not seen."""
    places: list[int] = []
    number = 0
    for leaf_number, (leaf, at) in enumerate(zip(leaves, how.by_rows, strict=True)):
        floats = isinstance(leaf, torch.Tensor) and leaf.dtype is not torch.int64
        if at is not None:
            several = range(number, number + max(1, of_lists[number]) * len(of_lists), len(of_lists))
            places += several if floats else []
            number += 1
        elif floats and type(leaf) in (LazyTensor, torch.Tensor):
            places.append(-1 - leaf_number)
    if len(places) != len(operands):
        return None
    for place, operand in zip(places, operands, strict=True):
        if operand != (STAND_IN - place if place >= 0 else recorder.value_of(leaves[-1 - place])):
            return None
    return places


def _of_all(recorder: Recorder, columns: list[Any], leaves: list[Any], place: int) -> Iterable[int]:
    """The operands of all rows that come from one place."""
    if place < 0:
        return repeat(recorder.value_of(leaves[-1 - place]))
    number, column = divmod(place, len(columns))
    found: list[Any] = columns[column]
    return [values[number] for values in found] if type(found[0]) is list else found


def _length(row: Any) -> int:
    """How many values a row is, if it is a list of them; else 0, and -1 if it is a list of lists."""
    return len(row) if type(row) is list else -1 if type(row) is LazyTensor else 0


def _interleaved(columns: list[list[Any]]) -> list[Any]:
    """The entries of columns, row after row."""
    return columns[0] if len(columns) == 1 else [one for row in zip(*columns, strict=True) for one in row]


def _joined(recorder: Recorder, parts: list[Any], row: RowsSpec) -> LazyTensor:
    """What calls of one row returned, as one tensor."""
    whole = joined_rows(recorder, "cat", parts, row.at)
    if whole is None:
        whole = lazy_rows(recorder, [recorder.value_of(part) for part in parts], row.row, row.at)
    return whole


def _learn_one(
    recorder: Recorder, site: Site, arguments: Any, node: Any, values: list[int], returned: tuple[list[RowsSpec], Any]
) -> None:
    """Let calls like this one, which has one row, be known as one node; what they return is still a list of rows."""
    key, operands, attributes = described(recorder, arguments, site.integers_vary)
    if operands == values and not attributes:
        rows, structure = returned
        nested = isinstance(structure, pytree.TreeSpec)
        form = partial(pytree.tree_unflatten, treespec=structure) if nested else structure
        site.learn(key, (node[0], node[1], returned_of(rows, form)))


def _recorded(
    recorder: Recorder, type_id: int, columns: Any, count: int, attributes: Any, returned: tuple[list[RowsSpec], Any]
) -> Any:
    """Record a node for every row, given the attributes of all, and make what the call returns."""
    rows, structure = returned
    width = len(rows)
    value = _append(recorder, type_id, columns, count, attributes, width)
    stop = value + count * width
    return _stacked(recorder, [list(range(value + place, stop, width)) for place in range(width)], rows, structure)


def _stacked(recorder: Recorder, values: list[list[int]], rows: list[RowsSpec], structure: Any) -> Any:
    made = [lazy_rows(recorder, own, row.row, row.at) for own, row in zip(values, rows, strict=True)]
    return _arranged(made, structure)


def _arranged(tensors: list[Any], structure: Any) -> Any:
    """Tensors as a call returns them: see :func:`_returned`."""
    if structure is None:
        return tensors[0]
    return structure(tensors) if structure is tuple or structure is list else pytree.tree_unflatten(tensors, structure)


def _returned(how: RowByRow, leaves: list[Any], outputs: Sequence[TensorSpec]) -> tuple[list[RowsSpec], Any]:
    """What a call returns, given what that of one row returns.

    The structure of one tensor is None, that of a tuple or list of tensors its class: what ``native_core`` knows.
    """
    if how.returned is not POINTWISE:
        rows, structure = how.returned
        if structure.is_leaf():
            return list(rows), None
        plain = structure.type in (tuple, list) and structure.num_children == structure.num_leaves
        return list(rows), structure.type if plain else structure
    rank = len(outputs[0].shape)
    at = next(at for leaf, at in zip(leaves, how.by_rows, strict=True) if at is not None and leaf.dim() == rank)
    return [rows_of(_without(outputs[0], at), at)], None


def _as_one_node(recorder: Recorder, site: Site, arguments: tuple[Any, ...]) -> Any:
    found = recorder.library.as_one_node(recorder, site, arguments)
    if isinstance(found, EmptyResult):
        return recorder.otherwise(site, arguments, found, None)
    cell, operands, attributes = found
    type_id, outputs, returned = cell.made
    numbers = list(map(number_of, attributes))
    return returned(recorder, _append(recorder, type_id, [[one] for one in operands], 1, numbers, len(outputs)))


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


def _lists_of_rows(tensor: LazyTensor, at: int) -> list[list[int]] | None:
    """The values of each row, where a row is a list of several values along the next dimension; else None."""
    shape = tensor.shape
    held, (size, stride, offset) = tensor.held, geometry_of(tensor)
    if held is None or len(shape) < at + 3 or shape[at + 1] < 2:
        return None
    count, width = shape[at : at + 2]
    every = held.listed and len(held.rows) == count * width and not offset
    if every and held.row * count * width == tensor.spec.size and strided_storage.is_dense(size, stride):
        return [held.rows[first : first + width] for first in range(0, count * width, width)]
    grid = grid_of(tensor)
    if grid is None or grid.dim() != at + 2:
        return None
    lists: list[list[int]] = grid.reshape(shape[at], shape[at + 1]).tolist()
    return lists


def _list_of_row(recorder: Recorder, tensor: LazyTensor, at: int, values: list[int]) -> LazyTensor:
    """The row of a tensor that has these values, see :func:`_lists_of_rows`; its extent along `at` is 1."""
    shape = tensor.shape
    return lazy_rows(recorder, values, spec_of((*shape[:at], 1, *shape[at + 2 :]), tensor.dtype), at + 1)


def _values_of_rows(recorder: Recorder, argument: Any, at: int) -> list[Any]:
    """The values of the rows of a tensor; the integers of rows, or their tensors; rows that are lists, as tensors."""
    if argument.dtype is torch.int64:
        if argument.numel() == argument.shape[at] and type(argument) is not LazyTensor:
            numbers: list[Any] = argument.reshape(-1).tolist()
            return numbers
        return list(argument.split(1, at)) if argument.shape[at] else []
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
        if type(rows) is GridSpec:
            return _lists_of_rows(argument, at) or list(argument.split(1, at))
    # An ordinary tensor, or one that is described like an ordinary one that was taken row by row.
    if argument.shape[at] == 1:
        return [recorder.value_of(argument)]
    if type(argument) is LazyTensor:
        return [recorder.value_of(part) for part in argument.split(1, at)]
    return recorder.outside.numbers(own_parameter(argument), at)
