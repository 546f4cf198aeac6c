"""Choices of rows: operators that move whole rows of recorded tensors, which takes no kernel and no cell.

A tensor whose storage has one value for each of its rows is a grid of values. An operator that moves rows and looks
into none, such as ``flip``, ``roll`` or an index along a leading dimension, does to the tensor what it does to the
grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording import strided_storage
from edbatch_tvm.recording.detached import writable
from edbatch_tvm.recording.lazy import LazyTensor, geometry_of, lazy_rows, lazy_view, storage_of
from edbatch_tvm.recording.recorded_parameters import own_parameter
from edbatch_tvm.recording.specs import spec_of
from edbatch_tvm.recording.storages import as_written, value_of_row
from edbatch_tvm.recording.strided_storage import Storage, dense_strides, is_dense

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder


def grid_of(tensor: LazyTensor) -> torch.Tensor | None:
    """The values that the rows of a tensor are, in the shape of its leading dimensions; None if a row is no value.

    Storages of one row that is no row of a list have no grid.
    """
    storage = tensor.held
    if storage is None or not storage.listed or storage.row == 0:
        return None
    size, stride, offset = geometry_of(tensor)
    row = storage.row
    rank = strided_storage.leading_of_grid((size, stride, offset), row)
    if rank is None:
        return None
    steps = [step // row for step in stride[:rank]]
    rows = torch.tensor(storage.rows, dtype=torch.int64)
    return rows.as_strided(size[:rank], steps, offset // row)


def tensor_of_grid(recorder: Recorder, grid: torch.Tensor, row: Sequence[int], dtype: torch.dtype) -> LazyTensor:
    """The tensor whose rows, of shape `row`, are the values of `grid`."""
    return tensor_of_values(recorder, grid.reshape(-1).tolist(), grid.shape, row, dtype)


def tensor_of_values(
    recorder: Recorder, values: list[int], leading: Sequence[int], row: Sequence[int], dtype: torch.dtype
) -> LazyTensor:
    """The tensor of leading dimensions `leading` whose rows, of shape `row`, are `values`; the list becomes its own."""
    at = len(leading) - 1
    if at >= 0 and prod(leading[:at]) == 1:
        return lazy_rows(recorder, values, spec_of((*leading[:at], *row), dtype), at)
    size = (*leading, *row)
    storage = Storage(values, strided_storage.elements(row), True)
    return lazy_view(recorder, storage, (size, dense_strides(size), 0), dtype)


def chosen_rows(recorder: Recorder, name: str, operator: Any, arguments: Any, named: Any) -> LazyTensor | None:
    """What an operator makes of a tensor if it moves rows alone; None if it does something else.

    Parameters
    ----------
    name : str
        The operator's, without overload.
    """
    check = _MOVES.get(name)
    source = arguments[0] if arguments else None
    if name == "embedding" and type(source) is LazyTensor:  # rows of a recorded table
        return _looked_up(recorder, source, arguments[1])
    if check is None or type(source) is not LazyTensor or source.recorder is not recorder:
        return None
    grid = grid_of(source)
    if grid is None:
        return None
    rest = [_numbers(one) for one in arguments[1:]]
    given = check(source.shape, grid.dim(), rest, dict(named))
    if given is None:
        return None
    try:
        chosen = operator(grid, *given[0], **given[1])
    except (IndexError, RuntimeError):  # as PyTorch, which says it better of the tensor itself
        return None
    return tensor_of_grid(recorder, chosen, source.shape[grid.dim() :], source.dtype)


def _looked_up(recorder: Recorder, table: LazyTensor, words: Any) -> LazyTensor | None:
    if type(words) is LazyTensor or not words.numel() or bool((words < 0).any()):
        return None
    return chosen_rows(recorder, "index", torch.ops.aten.index.Tensor, (table, [words]), {})


def _numbers(argument: Any) -> Any:
    """Indices that were recorded, computed."""
    if type(argument) is LazyTensor:
        return argument.computed()
    return [_numbers(one) for one in argument] if isinstance(argument, list | tuple) else argument


_FEW_PARTS = 4
"""Vectors that are joined by an operator; more are seen as rows, so that their number makes no cell of its own."""

# Lists of rows --------------------------------------------------------------------------------------------------


def joined_rows(recorder: Recorder, name: str, tensors: Any, dim: int = 0) -> LazyTensor | None:
    """Tensors stacked or joined along a leading dimension, as rows; None if that takes more than moving rows."""
    parts = list(tensors)
    if name == "cat" and len(parts) > _FEW_PARTS and dim in (0, -1) and type(parts[0]) is LazyTensor:
        vectors = _joined_vectors(recorder, parts)
        if vectors is not None:
            return vectors
    if not parts or not all(isinstance(one, torch.Tensor) and one.dtype is parts[0].dtype for one in parts):
        return None
    stacked = name == "stack"
    rank = parts[0].dim()
    at = dim + rank + stacked if dim < 0 else dim
    if rank == 1 and not stacked and at == 0 and len(parts) > _FEW_PARTS:
        return _joined_vectors(recorder, parts)
    if not 0 <= at < rank or any(one.dim() != rank for one in parts):  # beyond the last: no rows are left
        return None
    leading = at if stacked else at + 1
    if leading >= rank:
        return None
    shape = parts[0].shape
    if shape[:leading].numel() == 1 and all(one.shape == shape for one in parts):
        values = [_single(recorder, one) for one in parts]
        if None not in values:
            row = spec_of((*shape[:at], *shape[leading:]), parts[0].dtype)
            return lazy_rows(recorder, values, row, at) if row.size else None  # type: ignore[arg-type]
    known = [grid_of(one) if _is_recorded(recorder, one) else None for one in parts]
    leading = max([leading, *(_least(grid) for grid in known if grid is not None)])
    if leading >= rank or any(one.shape[leading:] != parts[0].shape[leading:] for one in parts):
        return None
    if not parts[0].shape[leading:].numel():
        return None
    grids = [_grid(recorder, one, grid, leading) for one, grid in zip(parts, known, strict=True)]
    found = [grid for grid in grids if grid is not None]
    if len(found) < len(grids):
        return None
    try:
        grid = torch.stack(found, at) if stacked else torch.cat(found, at)
    except RuntimeError:  # shapes that do not fit: as PyTorch, which says it better of the tensors themselves
        return None
    return tensor_of_grid(recorder, grid, parts[0].shape[leading:], parts[0].dtype)


def _single(recorder: Recorder, tensor: torch.Tensor) -> int | None:
    """The value that a tensor is all of; None if it is several, a part of one, or unlike values of the minibatch."""
    if type(tensor) is LazyTensor:
        if tensor.recorder is not recorder:
            return None
        return tensor.value if tensor.held is None else value_of_row(tensor)
    plain = type(tensor) is torch.Tensor and tensor.dtype is recorder.dtype and tensor.is_cpu and tensor.numel() > 0
    return recorder.outside.number(tensor) if plain else None


def _joined_vectors(recorder: Recorder, parts: list[torch.Tensor]) -> LazyTensor | None:
    """Many vectors of one size joined: their rows, seen as one vector."""
    shape, dtype = parts[0].shape, parts[0].dtype
    if len(shape) != 1 or shape[0] < 2:
        return None
    spec = spec_of(shape, dtype)
    values: list[int] = []
    same: Any = None  # the tensor before, which is often this one: padding
    for one in parts:
        kind = type(one)
        if one is same:
            values.append(values[-1])
        elif kind is LazyTensor:
            if one.spec is not spec or one.recorder is not recorder:
                return None
            values.append(one.value if one.held is None else recorder.value_of(one))
        elif kind is torch.Tensor and one.shape == shape and one.dtype is dtype:
            values.append(recorder.value_of(one))
        else:
            return None
        same = one
    return lazy_view(recorder, Storage(values, shape[0], True), ((shape[0] * len(parts),), (1,), 0), dtype)


def _is_recorded(recorder: Recorder, tensor: Any) -> bool:
    return type(tensor) is LazyTensor and tensor.recorder is recorder


def _least(grid: torch.Tensor) -> int:
    """The fewest dimensions of a grid that leave each row a value: those of extent 1 at its end may be the row's."""
    rank = grid.dim()
    while rank and grid.shape[rank - 1] == 1:
        rank -= 1
    return rank


def _grid(recorder: Recorder, tensor: torch.Tensor, grid: torch.Tensor | None, leading: int) -> torch.Tensor | None:
    """The grid of a tensor with a number of leading dimensions; None if there is none."""
    shape = tensor.shape[:leading]
    if grid is not None:
        return grid.reshape(shape) if grid.shape[:leading] == shape and grid.numel() == shape.numel() else None
    if type(tensor) is LazyTensor:
        if tensor.recorder is not recorder or shape.numel() != 1:
            return None
        return torch.tensor([recorder.value_of(tensor)]).reshape(shape)
    if tensor.dtype is not recorder.dtype or not tensor.is_cpu:
        return None
    rows = own_parameter(tensor).reshape(shape.numel(), *tensor.shape[leading:])
    return torch.tensor([recorder.outside.number(row) for row in rows.unbind()], dtype=torch.int64).reshape(shape)


def written_rows(recorder: Recorder, target: LazyTensor, indices: Any, source: Any) -> bool:
    """Write rows at indices along leading dimensions: ``target[indices] = source``; False if that is something else."""
    grid = grid_of(target)
    if grid is None or not isinstance(source, torch.Tensor) or source.dtype is not target.dtype:
        return False
    indices = [_numbers(one) for one in indices]
    if _indexed(target.shape, grid.dim(), [indices], {}) is None:
        return False
    size, stride, offset = geometry_of(target)
    storage = writable(storage_of(target))
    row, leading = storage.row, grid.dim()
    steps = [step // row if extent > 1 else 0 for extent, step in zip(size[:leading], stride[:leading], strict=True)]
    places = torch.arange(len(storage.rows)).as_strided(size[:leading], steps, offset // row)
    chosen = places[tuple(slice(None) if one is None else one for one in indices)]
    shape = (*chosen.shape, *size[leading:])
    source = as_written(recorder, source).expand(shape)
    own = grid_of(source) if _is_recorded(recorder, source) else None
    values = _grid(recorder, source, own, chosen.dim())
    if values is None:
        return False
    for place, value in zip(chosen.reshape(-1).tolist(), values.reshape(-1).tolist(), strict=True):
        storage.rows[place] = value
    return True


_Given = tuple[list[Any], dict[str, Any]] | None


def _along(place: int) -> Any:
    """Operators that take dimensions as argument `place`, after the tensor."""

    def check(shape: torch.Size, leading: int, rest: list[Any], named: dict[str, Any]) -> _Given:
        rank = len(shape)
        dims = rest[place] if len(rest) > place else named.get("dim", named.get("dims"))
        if dims is None:
            return None
        several = isinstance(dims, list | tuple)
        plain = [dim % rank for dim in (dims if several else [dims])] if rank else []
        if not plain or max(plain) >= leading:
            return None
        changed = [*rest]
        if len(rest) > place:
            changed[place] = plain if several else plain[0]
            return changed, named
        return changed, {**named, ("dims" if "dims" in named else "dim"): plain if several else plain[0]}

    return check


def _indexed(_shape: torch.Size, leading: int, rest: list[Any], named: dict[str, Any]) -> _Given:
    taken = 0
    for one in rest[0]:
        taken += one.dim() if one is not None and one.dtype in (torch.bool, torch.uint8) else 1
    return (rest, named) if taken <= leading else None


def _gathered(shape: torch.Size, leading: int, rest: list[Any], named: dict[str, Any]) -> _Given:
    dim, index = rest[:2]
    if dim % len(shape) >= leading or index.shape[leading:] != shape[leading:] or not index.numel():
        return None
    first = (..., *([0] * (len(shape) - leading)))
    chosen = index[first]
    same = chosen.reshape(*chosen.shape, *[1] * (len(shape) - leading))
    return ([dim % len(shape), chosen], {}) if bool((index == same).all()) else None


def _repeated(shape: torch.Size, leading: int, rest: list[Any], named: dict[str, Any]) -> _Given:
    times = rest[0]
    rank = len(shape)
    inner = rank - leading
    if len(times) < rank or any(one != 1 for one in times[len(times) - inner :]):
        return None
    return [times[: len(times) - inner]], named


_MOVES: dict[str, Any] = {
    "index_select": _along(0),
    "flip": _along(0),
    "roll": _along(1),
    "index": _indexed,
    "gather": _gathered,
    "repeat": _repeated,
}


def listed_values(recorder: Recorder, tensor: torch.Tensor) -> list[int]:
    """What :func:`values_of_rows` has, row after row.

    Raises
    ------
    CellError
        As there.
    """
    if type(tensor) is LazyTensor and tensor.recorder is recorder:
        storage, width = tensor.held, tensor.spec.shape[-1]
        if storage is None:
            if width and tensor.spec.size == width:
                return [tensor.value]
        elif storage.listed and storage.row == width:
            size, stride, offset = geometry_of(tensor)
            if not offset and is_dense(size, stride) and tensor.spec.size == width * len(storage.rows):
                return [*storage.rows]
    values: list[int] = values_of_rows(recorder, tensor).reshape(-1).tolist()
    return values


def values_of_rows(recorder: Recorder, tensor: torch.Tensor) -> torch.Tensor:
    """The values that the rows of a tensor are, each all of its last dimension, in the shape of the other dimensions.

    Raises
    ------
    CellError
        If the tensor is empty, of another dtype than the model, or not on the CPU.
    """
    if type(tensor) is LazyTensor and tensor.recorder is recorder:
        grid = grid_of(tensor)
        if grid is not None and grid.dim() == tensor.dim() - 1:
            return grid
        flat = tensor.reshape(-1, tensor.shape[-1])
        return torch.tensor([recorder.value_of(row) for row in flat.split(1)]).reshape(tuple(tensor.shape[:-1]))
    if type(tensor) is LazyTensor:
        tensor = tensor.computed()
    if tensor.dtype is not recorder.dtype or not tensor.is_cpu or not tensor.numel():
        raise CellError(f"rows of a tensor of shape {list(tensor.shape)} of {tensor.dtype} on {tensor.device}")
    return recorder.external_rows(tensor.reshape(-1, tensor.shape[-1])).reshape(tensor.shape[:-1])
