"""``tensor[index]`` and ``tensor[index] = rows``, where the index says which rows, without a way through PyTorch.

PyTorch would come back with several operators for each. What is not of this form is left to it, errors as well.
"""

from __future__ import annotations

from typing import Any

import torch

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording import strided_storage
from edbatch_tvm.recording.lazy import LazyTensor, geometry_of, lazy_rows, storage_of
from edbatch_tvm.recording.recorded_views import ROWS_AT, at_index, basic_key, view
from edbatch_tvm.recording.specs import FLOATS, spec_of
from edbatch_tvm.recording.storages import as_written, row_values, write
from edbatch_tvm.recording.strided_storage import Storage


def rows_at(source: LazyTensor, parts: tuple[Any, ...]) -> Any:
    """The rows of a tensor at the places that vectors of integers, and integers, say; NotImplemented for others."""
    recorder = source.recorder
    if recorder.finished or torch._C._is_any_autocast_enabled():
        return NotImplemented
    if source.held is None or not source.held.listed:
        return _elements_at(source, parts)
    places = _places(source, parts)
    if places is None:
        return NotImplemented
    rows = storage_of(source).rows
    return lazy_rows(recorder, [rows[place] for place in places], _row_spec(source, len(parts)))


def _elements_at(source: LazyTensor, parts: tuple[Any, ...]) -> Any:
    """Elements of a value at places that one vector of integers says; NotImplemented for other indices."""
    if len(parts) != 1 or type(parts[0]) is not torch.Tensor or parts[0].dtype is not torch.int64:
        return NotImplemented
    if parts[0].dim() != 1 or not source.spec.size or not source.spec.shape:
        return NotImplemented
    try:
        return source.recorder.operator(torch.ops.aten.index.Tensor, (source, [parts[0]]), {})
    except CellError:
        return NotImplemented


def write_at(target: LazyTensor, index: Any, source: Any) -> bool:
    """``target[index] = source``, for a source of the shape that is written; False if nothing was done."""
    recorder = target.recorder
    if recorder.finished or torch._C._is_any_autocast_enabled() or source.dtype is not target.dtype:
        return False
    if type(source) is LazyTensor and source.recorder is not recorder:
        return False
    parts = index if type(index) is tuple else (index,)
    key = basic_key(parts)
    if key is not None:
        place = view(at_index, target, (key,), {})
        if place.shape != source.shape or not place.spec.size:
            return False
        write(recorder, place, source)
        return True
    places = _places(target, parts)
    if places is None or tuple(source.shape) != (len(places), *target.shape[len(parts) :]):
        return False
    values = row_values(recorder, as_written(recorder, source), 0, storage_of(target).row)
    storage = storage_of(target)
    for place, value in zip(places, values, strict=True):
        storage.rows[place] = value
    return True


def _places(tensor: LazyTensor, parts: tuple[Any, ...]) -> list[int] | None:
    """Which rows of its storage integers and vectors of integers choose; None if they are something else."""
    storage = tensor.held
    if type(storage) is not Storage or not storage.listed or not storage.row or not tensor.spec.size:
        return None
    size, stride, offset = geometry_of(tensor)
    if strided_storage.leading_of_grid((size, stride, offset), storage.row) != len(parts):
        return None
    count = -1
    columns: list[tuple[Any, int]] = []
    for part, extent, step in zip(parts, size, stride, strict=False):
        if type(part) is int:
            numbers = [part]
        elif type(part) is torch.Tensor and part.dtype is torch.int64 and part.dim() == 1:
            numbers = part.tolist()
            if count not in (-1, len(numbers)) or not numbers:
                return None  # they are broadcast, or it is an error
            count = len(numbers)
        else:
            return None
        if min(numbers) < -extent or max(numbers) >= extent:
            return None
        columns.append(([number % extent for number in numbers], step // storage.row))
    if count < 0:
        return None
    places = [offset // storage.row] * count
    for numbers, step in columns:
        every = numbers if len(numbers) == count else numbers * count
        places = [place + step * number for place, number in zip(places, every, strict=True)]
    return places


def _row_spec(tensor: LazyTensor, leading: int) -> Any:
    return spec_of(tensor.shape[leading:], tensor.dtype)


def takes(source: Any) -> bool:
    """Whether a tensor may be written into a recorded one as it is."""
    return type(source) is LazyTensor or (type(source) is torch.Tensor and source.dtype in FLOATS)


ROWS_AT.append(rows_at)
