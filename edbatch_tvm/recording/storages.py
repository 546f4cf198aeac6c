"""What tensors in a storage are as operands of cells, and writing into them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording import strided_storage
from edbatch_tvm.recording.detached import detached, writable
from edbatch_tvm.recording.empty_results import NoElements
from edbatch_tvm.recording.lazy import LazyTensor, geometry_of, lazy_rows, lazy_value, storage_of
from edbatch_tvm.recording.specs import GridSpec, RowsSpec, TensorSpec, grid_of_rows, rows_of, spec_of
from edbatch_tvm.recording.strided_storage import Geometry, Storage

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder


def resolved(recorder: Recorder, tensor: LazyTensor) -> tuple[TensorSpec | RowsSpec | GridSpec, list[int]]:
    """What a tensor is as an operand: one value, or rows of a list; no values where rows lie in several dimensions."""
    storage = tensor.held
    if storage is None:
        return tensor.spec, [tensor.value]
    geometry = tensor.geometry
    assert geometry is not None
    size = geometry[0]
    dtype = tensor.spec.dtype
    rows = storage.rows
    if tensor.spec.size == 0 and not (storage.listed and strided_storage.is_list_of_none(size)):
        raise NoElements
    if len(rows) == 1 and not storage.listed:
        return tensor.spec, [_picked(recorder, rows[0], storage.row, geometry, dtype)]
    if storage.listed:
        found = rows_in(geometry, storage.row, dtype)
        if found is not None:
            first, step, count, row, part = found
            chosen = rows[first : first + count] if step == 1 else [rows[first + n * step] for n in range(count)]
            if part is not None:
                chosen = [_picked(recorder, value, storage.row, part, dtype) for value in chosen]
            return row, chosen
        leading = strided_storage.leading_of_grid(geometry, storage.row) if tensor.spec.size else None
        if leading is not None and leading > 1:
            return grid_of_rows(tensor.spec, leading), []
    if tensor.spec.size == 0:
        raise NoElements
    return tensor.spec, [whole_value(recorder, tensor)]


def value_of_row(tensor: LazyTensor) -> int | None:
    """The value of the row of its storage that a tensor is all of, in order; None if it is something else."""
    storage, geometry = tensor.held, tensor.geometry
    if type(storage) is not Storage or geometry is None:  # rows of detached memory are other values
        return None
    size, stride, offset = geometry
    row = storage.row
    if tensor.spec.size != row or not row or offset % row or not strided_storage.is_dense(size, stride):
        return None
    return storage.rows[offset // row]


@lru_cache(1 << 16)
def rows_in(geometry: Geometry, row: int, dtype: torch.dtype) -> tuple[int, int, int, RowsSpec, Geometry | None] | None:
    """A tensor as rows of its storage, whose rows have `row` elements; None if it is none along one dimension.

    Returns
    -------
    first, step, count : int
        Which rows.
    spec : RowsSpec
        Of what the tensor has of them.
    part : Geometry or None
        Where that lies in each; None if it is all of them.
    """
    at, found = strided_storage.rows_along(geometry, row)
    if found is None:
        return None
    first, step, part = found
    size = geometry[0]
    spec = rows_of(spec_of((*size[:at], *size[at + 1 :]), dtype), at)
    whole = not part[2] and strided_storage.elements(part[0]) == row and strided_storage.is_dense(part[0], part[1])
    return first, step, size[at], spec, None if whole else part


def whole_value(recorder: Recorder, tensor: LazyTensor) -> int:
    """The value that a tensor in a storage is, if its rows are joined."""
    storage = tensor.held
    assert storage is not None
    size, stride, offset = geometry = geometry_of(tensor)
    dtype, rows = tensor.spec.dtype, storage.rows
    first, within = divmod(offset, storage.row)
    last = strided_storage.last_element(size, stride)
    if within + last < storage.row:
        return _picked(recorder, rows[first], storage.row, (size, stride, within), dtype)
    joint = joined(recorder, storage, dtype)
    return _picked(recorder, joint, storage.row * len(rows), geometry, dtype)


class Joined:
    """Stands for calls whose tensors with rows along several dimensions become one value each before."""


JOINED = Joined()


def with_whole_values(recorder: Recorder, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments in which tensors with rows along several dimensions are one value each; the same if there are none."""
    found = False

    def whole(leaf: Any) -> Any:
        nonlocal found
        if type(leaf) is not LazyTensor or leaf.recorder is not recorder or leaf.held is None or not leaf.spec.size:
            return leaf
        if leaf.geometry is leaf.held.whole or type(resolved(recorder, leaf)[0]) is not GridSpec:
            return leaf
        found = True
        return lazy_value(recorder, whole_value(recorder, leaf), leaf.spec)

    given = pytree.tree_map(whole, arguments)
    return given if found else arguments


def _picked(recorder: Recorder, value: int, row: int, geometry: Geometry, dtype: torch.dtype) -> int:
    """The value that a part of a row is."""
    size, stride, offset = geometry
    if not offset and strided_storage.elements(size) == row and strided_storage.is_dense(size, stride):
        return value
    key = value, geometry
    found = recorder.picked.get(key)
    if found is None:
        plain = value, strided_storage.flattened(geometry)
        found = recorder.picked.get(plain)
        if found is None:
            given = value, spec_of((row,), dtype)
            found = recorder.picked[plain] = _derived(recorder, strided_storage.pick, given, plain[1])
        recorder.picked[key] = found
    return found


def joined(recorder: Recorder, storage: Storage, dtype: torch.dtype) -> int:
    """All rows of a storage as one value."""
    key = tuple(storage.rows)
    found = recorder.picked.get(key)
    if found is None:
        rows = lazy_rows(recorder, storage.rows.copy(), spec_of((storage.row,), dtype))
        try:
            found = recorder.value_of(recorder.operator(strided_storage.joined, (rows,), {}))
        except CellError:
            found = recorder.outside.number(recorder.read(rows).reshape(-1))
        recorder.picked[key] = found
    return found


def _derived(recorder: Recorder, function: Any, source: tuple[int, TensorSpec], rest: tuple[Any, ...]) -> int:
    """A value made of another by code of this package."""
    tensor = lazy_value(recorder, *source)
    try:
        return recorder.value_of(recorder.operator(function, (tensor, *rest), {}))
    except CellError:
        given = [recorder.read(one) if type(one) is LazyTensor else one for one in (tensor, *rest)]
        return recorder.outside.number(function(*given))


def write(recorder: Recorder, target: LazyTensor, source: Any) -> None:
    """Let the elements of `target` be those of `source`, a tensor of its shape and dtype."""
    source = as_written(recorder, source)
    storage = writable(storage_of(target))
    geometry = geometry_of(target)
    size, stride, _ = geometry
    if target.spec.size == 0:
        return
    dtype = target.spec.dtype
    at, found = strided_storage.rows_along(geometry, storage.row)
    if found is not None:
        first, step, part = found
        if strided_storage.elements(part[0]) == storage.row and strided_storage.is_dense(part[0], part[1]):
            for number, value in enumerate(row_values(recorder, source, at, storage.row)):
                storage.rows[first + number * step] = value
            return
    first, within = divmod(geometry[2], storage.row)
    last = strided_storage.last_element(size, stride)
    if within + last >= storage.row:
        joint = joined(recorder, storage, dtype)
        storage.join(joint)
        first, within = 0, geometry[2]
    value = recorder.value_of(source)
    if not within and target.spec.size == storage.row and strided_storage.is_dense(size, stride):
        storage.rows[first] = value
        return
    part = lazy_value(recorder, value, spec_of((target.spec.size,), dtype))
    given = (storage.rows[first], spec_of((storage.row,), dtype))
    place = strided_storage.flattened((size, stride, within))
    storage.rows[first] = _derived(recorder, strided_storage.patched, given, (part, *place))


def as_written(recorder: Recorder, source: Any) -> Any:
    """What is written: where no gradients are recorded, a tensor that no gradient passes."""
    if recorder.tape is None or type(source) is not LazyTensor or torch.is_grad_enabled():
        return source
    return detached(recorder, source)


def row_values(recorder: Recorder, source: Any, at: int, row: int) -> list[int]:
    """The values of the rows of a tensor along a dimension, before which others have extent 1; flat."""
    count = source.shape[at]
    if count == 1:
        return [recorder.value_of(source)]
    if type(source) is LazyTensor and source.recorder is recorder:
        spec, values = resolved(recorder, source)
        if type(spec) is RowsSpec and len(values) == count:
            return values
        whole = recorder.value_of(source)
        flat = [((row,), (1,), number * row) for number in range(count)]
        return [_picked(recorder, whole, row * count, part, source.spec.dtype) for part in flat]
    return [recorder.outside.number(one) for one in source.unbind(at)]
