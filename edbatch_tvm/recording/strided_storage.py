"""Memory of recorded tensors: rows of values that views share, as the tensors of PyTorch share a storage.

A tensor is a size, strides and an offset in a storage, whatever made it a view. A storage is a list of rows of one
length, each a value of the graph, which never changes: writing replaces rows. So every view sees what was written
through another, and reading one is a choice of rows, or of elements of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from edbatch_tvm.recording.lazy import Source
    from edbatch_tvm.recording.specs import RowsSpec

Geometry = tuple[tuple[int, ...], tuple[int, ...], int]
"""Size, strides and offset of a tensor in its storage."""


class Storage:
    """Memory that recorded tensors share.

    Attributes
    ----------
    rows : list of int
        The values that lie in it, one after another.
    row : int
        Elements of each.
    listed : bool
        Whether rows come from a list, which may have any length: ``torch.stack(states)``.
    whole : Geometry or None
        That of the tensor which the rows were made for, as long as it is a list of rows of `spec`.
    spec : RowsSpec or None
    sources : sequence of Source
        What went into it although it has none of it, see :mod:`~edbatch_tvm.recording.empty_gradients`.
    """

    __slots__ = ("_rows", "listed", "row", "spec", "whole")

    sources: Sequence[Source] = ()

    def __init__(
        self,
        rows: list[int],
        row: int,
        listed: bool = False,
        whole: Geometry | None = None,
        spec: RowsSpec | None = None,
    ) -> None:
        self._rows: Any = rows
        self.row = row
        self.listed = listed
        self.whole = whole
        self.spec = spec

    @property
    def rows(self) -> list[int]:
        """The values that lie in it; recorded now, where an operator was to be recorded later."""
        if type(self._rows) is not list:
            self._rows = self._rows.recorded()
        return self._rows

    @rows.setter
    def rows(self, rows: list[int]) -> None:
        self._rows = rows

    def join(self, value: int) -> None:
        """Let all rows be one, which is `value`."""
        self.row *= len(self.rows)
        self.rows, self.listed, self.whole = [value], False, None


@cache
def dense_strides(size: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a tensor whose elements lie one after another."""
    strides, step = [], 1
    for extent in reversed(size):
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides))


@cache
def is_dense(size: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether elements lie one after another, in order."""
    step = 1
    for extent, one in zip(reversed(size), reversed(stride), strict=True):
        if extent != 1 and one != step:
            return False
        step *= extent
    return True


@cache
def last_element(size: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """The largest offset of an element, from that of the first."""
    return sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))


@lru_cache(1 << 16)
def flattened(geometry: Geometry) -> Geometry:
    """The same elements in the same order, in the fewest dimensions: equal for all tensors that have these.

    A dimension of one element may have any stride, that of a list of any length, say.
    """
    size, stride, offset = geometry
    kept: list[tuple[int, int]] = []
    for extent, step in zip(size, stride, strict=True):
        if extent == 1:
            continue
        if kept and kept[-1][1] == extent * step:
            kept[-1] = kept[-1][0] * extent, step
        else:
            kept.append((extent, step))
    return tuple(extent for extent, _ in kept), tuple(step for _, step in kept), offset


def elements(size: Sequence[int]) -> int:
    """Number of elements."""
    count = 1
    for extent in size:
        count *= extent
    return count


def rows_of_geometry(geometry: Geometry, row: int) -> tuple[int, int, Geometry] | None:
    """A tensor as the same part of some rows of its storage.

    Returns
    -------
    first, step : int
        The first row, and from one to the next.
    part : Geometry
        What of each row.
    """
    size, stride, offset = geometry
    if not size or row == 0:
        return None
    first, within = divmod(offset, row)
    step = stride[0]
    if size[0] <= 1:
        step = row if step % row else step
    elif step % row:
        return None
    if within + last_element(size[1:], stride[1:]) >= row:
        return None
    return first, step // row, (size[1:], stride[1:], within)


@lru_cache(1 << 16)
def rows_along(geometry: Geometry, row: int) -> tuple[int, tuple[int, int, Geometry] | None]:
    """The first dimension along which a tensor is rows of its storage, and how, see :func:`rows_of_geometry`.

    Dimensions before it have extent 1. The part of each row has them, too.
    """
    size, stride, offset = geometry
    for at in range(len(size)):
        found = rows_of_geometry((size[at:], stride[at:], offset), row) if elements(size[at + 1 :]) else None
        if found is not None:
            first, step, (shape, steps, within) = found
            return at, (first, step, (size[:at] + shape, stride[:at] + steps, within))
        if size[at] != 1:
            break
    return 0, None


@lru_cache(1 << 16)
def leading_of_grid(geometry: Geometry, row: int) -> int | None:
    """The number of dimensions along which a tensor is whole rows of its storage, in any order; None if it is not."""
    size, stride, offset = geometry
    rank = len(size)
    inner = 1
    while rank and inner < row:
        rank -= 1
        inner *= size[rank]
    if inner != row or not is_dense(size[rank:], stride[rank:]) or offset % row:
        return None
    if any(extent > 1 and step % row for extent, step in zip(size[:rank], stride[:rank], strict=True)):
        return None
    return rank


def is_list_of_none(size: Sequence[int]) -> bool:
    """Whether a shape without elements is that of no rows that have elements, along the dimension of extent 0."""
    for at, extent in enumerate(size):
        if extent != 1:
            return extent == 0 and elements(size[at + 1 :]) > 0
    return False


# Parts of a row, as code that torch.export takes -----------------------------------------------------------------


def pick(flat: torch.Tensor, size: Sequence[int], stride: Sequence[int], offset: int) -> torch.Tensor:
    """The elements of a flat row that a view of it has, as a tensor of their own."""
    size, stride = tuple(size), tuple(stride)
    count = elements(size)
    if is_dense(size, stride):
        return flat[offset : offset + count].reshape(size)
    order = sorted(range(len(size)), key=lambda dim: -stride[dim] if size[dim] != 1 else 0)
    inner = tuple(size[dim] for dim in order)
    steps = tuple(stride[dim] for dim in order)
    back = [order.index(dim) for dim in range(len(size))]
    if is_dense(inner, steps):
        return flat[offset : offset + count].reshape(inner).permute(back).contiguous()
    if all(step > 0 for step in steps):
        block = next((step for extent, step in zip(reversed(inner), reversed(steps), strict=True) if extent != 1), 1)
        width = flat.shape[0]
        cut = _block(inner, steps)
        if block == 1 and cut is not None and width % cut[1] == 0 and offset % cut[1] + cut[0] <= cut[1]:
            part, whole = cut
            rows = count // part
            begin = offset // whole
            table = flat.reshape(-1, whole)[begin : begin + rows, offset % whole : offset % whole + part]
            return table.reshape(inner).permute(back).contiguous()
    return flat[index_of(size, stride, offset)]


def _block(size: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, int] | None:
    """Elements that lie together, and how far apart such blocks are; None if there is more than one distance."""
    part, rest = 1, list(zip(size, stride, strict=True))
    while rest and (rest[-1][0] == 1 or rest[-1][1] == part):
        part *= rest.pop()[0]
    if not rest:
        return None
    whole = step = rest[-1][1]
    for extent, one in reversed(rest):
        if extent != 1 and one != step:
            return None
        step *= extent
    return part, whole


def index_of(size: Sequence[int], stride: Sequence[int], offset: int) -> torch.Tensor:
    """The offsets of the elements of a tensor."""
    places = torch.tensor(offset)
    for dim, (extent, step) in enumerate(zip(size, stride, strict=True)):
        shape = [1] * len(size)
        shape[dim] = extent
        places = places + (torch.arange(extent) * step).reshape(shape)
    return places


def patched(
    flat: torch.Tensor, part: torch.Tensor, size: Sequence[int], stride: Sequence[int], offset: int
) -> torch.Tensor:
    """A flat row with the elements that a view of it has replaced by `part`."""
    size, stride = tuple(size), tuple(stride)
    count = elements(size)
    if is_dense(size, stride):
        return torch.cat([flat[:offset], part.reshape(-1), flat[offset + count :]])
    source = torch.arange(flat.shape[0])
    source[index_of(size, stride, offset).reshape(-1)] = flat.shape[0] + torch.arange(count)
    return torch.cat([flat, part.reshape(-1)])[source]


def joined(rows: torch.Tensor) -> torch.Tensor:
    """Stacked rows as one flat value."""
    return rows.reshape(-1)
