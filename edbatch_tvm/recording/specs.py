"""What is known of a tensor before it is computed: its shape and dtype.

All values of a recorded graph have one dtype, the model's: float32 or float64. A mask is a value of zeros and ones, an
index of PyTorch one of whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from edbatch_tvm.recording.strided_storage import Geometry, dense_strides


class TensorSpec:
    """Shape and dtype of a recorded tensor. There is one object for each, so that specs compare by identity.

    A value lies flat in its arena, whatever its shape: another shape of it is free.

    Attributes
    ----------
    shape : torch.Size
    dtype : torch.dtype
    floats : bool
        Whether it has floating-point numbers, which gradients may pass.
    size : int
        Number of elements.
    geometry : Geometry
        Of a tensor that is all of its storage, in order.
    rest : TensorSpec or None
        That of the row of a matrix or the like that has one row.
    rows : RowsSpec or None
        That of any number of such tensors, stacked, once it was asked for.
    spare : object
        Tensors of this spec that ``native_core`` uses again.
    """

    __slots__ = ("dtype", "floats", "geometry", "rest", "rows", "shape", "size", "spare")

    def __init__(self, shape: torch.Size, dtype: torch.dtype) -> None:
        self.shape = shape
        self.dtype = dtype
        self.floats = dtype in FLOATS
        self.size = shape.numel()
        self.rest = spec_of(shape[1:], dtype) if len(shape) > 1 and shape[0] == 1 else None
        extents = tuple(shape)
        self.rows: RowsSpec | None = None
        self.spare: Any = None
        self.geometry: Geometry = extents, dense_strides(extents), 0

    def __repr__(self) -> str:
        return f"{list(self.shape)}" if self.dtype is torch.float32 else f"{list(self.shape)} of {self.dtype}"

    def decoded(self, values: torch.Tensor) -> torch.Tensor:
        """Values of the graph as this dtype; the backend "numpy" has float64."""
        if self.floats:
            return values if values.dtype is self.dtype else values.to(self.dtype)
        return values != 0 if self.dtype is torch.bool else values.to(self.dtype)


class RowsSpec:
    """Any number of rows of one shape, stacked; like :class:`TensorSpec`, one object for one shape.

    Attributes
    ----------
    row : TensorSpec
        Of a row, without the dimension along which they are stacked.
    at : int
        That dimension. All before it have extent 1, so that rows lie one after the other.
    dtype : torch.dtype
    stacked : dict of int to TensorSpec
        By number of rows, the specs that were asked for so far.
    """

    __slots__ = ("at", "dtype", "row", "stacked")

    def __init__(self, row: TensorSpec, at: int) -> None:
        self.row = row
        self.at = at
        self.dtype = row.dtype
        self.stacked: dict[int, TensorSpec] = {}

    def of(self, count: int) -> TensorSpec:
        """The spec of `count` rows."""
        found = self.stacked.get(count)
        if found is None:
            found = self.stacked[count] = spec_of(self.extents(count), self.dtype)
        return found

    def extents(self, count: int) -> tuple[int, ...]:
        """The shape of `count` rows."""
        return *self.row.shape[: self.at], count, *self.row.shape[self.at :]

    def __repr__(self) -> str:
        return f"k*{self.row!r}" if not self.at else f"k*{self.row!r} along dimension {self.at}"


class GridSpec:
    """Rows along several dimensions: one object for a shape, the number of these dimensions and a dtype.

    Cells take no such tensor. They are called for each part along the first of the dimensions, if they treat these
    parts alike, and else with all rows as one value.

    Attributes
    ----------
    whole : TensorSpec
        The tensor as one value.
    dtype : torch.dtype
    """

    __slots__ = ("dtype", "whole")

    def __init__(self, whole: TensorSpec) -> None:
        self.whole = whole
        self.dtype = whole.dtype

    def __repr__(self) -> str:
        return repr(self.whole)


_GRIDS: dict[tuple[TensorSpec, int], GridSpec] = {}


def grid_of_rows(whole: TensorSpec, leading: int) -> GridSpec:
    """The spec of a tensor whose first `leading` dimensions are those of rows."""
    key = whole, leading
    return _GRIDS.get(key) or _GRIDS.setdefault(key, GridSpec(whole))


FLOATS = (torch.float32, torch.float64)
"""Dtypes that the values of a graph may have."""

CODED = (torch.bool, torch.int64)
"""Other dtypes of recorded tensors."""

SPECS: dict[torch.Size, TensorSpec] = {}
_OTHER_SPECS: dict[tuple[torch.Size, torch.dtype], TensorSpec] = {}
_ROWS: dict[tuple[TensorSpec, int], RowsSpec] = {}
"""See :attr:`TensorSpec.rows`; ``setdefault`` lets several threads agree on one."""


def spec_of(shape: Iterable[int], dtype: torch.dtype) -> TensorSpec:
    """The spec of tensors of `shape` and `dtype`."""
    shape = shape if isinstance(shape, torch.Size) else torch.Size(shape)
    if dtype is torch.float32:
        found = SPECS.get(shape)
        return found if found is not None else SPECS.setdefault(shape, TensorSpec(shape, dtype))
    found = _OTHER_SPECS.get((shape, dtype))
    return found if found is not None else _OTHER_SPECS.setdefault((shape, dtype), TensorSpec(shape, dtype))


def rows_of(row: TensorSpec, at: int = 0) -> RowsSpec:
    """The spec of rows of spec `row`, stacked along dimension `at`."""
    if at:
        return _ROWS.get((row, at)) or _ROWS.setdefault((row, at), RowsSpec(row, at))
    found = row.rows
    if found is None:
        found = row.rows = _ROWS.setdefault((row, 0), RowsSpec(row, 0))
    return found
