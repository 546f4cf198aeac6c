"""Ordinary tensors that recorded calls read: copies of their numbers, as they were when they were passed.

A copy goes straight into a table of all rows of that size, from which the graph reads it. That costs a third of
``clone()``, of which a minibatch would make thousands.
"""

from __future__ import annotations

import _ctypes
import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, float32

from edbatch_tvm.errors import CellError, RecordingError
from edbatch_tvm.recording.empty_results import NoElements
from edbatch_tvm.recording.specs import CODED, TensorSpec, spec_of
from edbatch_tvm.recording.tables import Table, Tables

# ctypes.memmove lets other threads run meanwhile, which takes longer than to copy a row.
_copy: Any = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(
    _ctypes._memmove_addr  # type: ignore[attr-defined]
)
_compare: Any = ctypes.PyDLL(None).memcmp
_compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_compare.restype = ctypes.c_int


class Outside:
    """The tensors from outside of one minibatch, numbered -1, -2, ...

    Attributes
    ----------
    specs : list of TensorSpec
        By ``-1 - number``, as the following.
    table, row : list of int
        Where each tensor lies in `tables`.
    """

    __slots__ = ("_known", "_places", "_tables", "row", "specs", "table")

    def __init__(self, tables: Tables) -> None:
        self.specs: list[TensorSpec] = []
        self.table: list[int] = []
        self.row: list[int] = []
        self._tables = tables
        self._places = np.empty((2, 0), np.int64)
        self._known: dict[int, tuple[TensorSpec, Table, int, int]] = {}

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor with what is in it now.

        Raises
        ------
        CellError
            If it cannot be an operand.
        """
        dtype = tensor.dtype
        plain = type(tensor) is Tensor and dtype is float32 and tensor.is_cpu and tensor.layout is torch.strided
        source = tensor
        if not plain or not tensor.is_contiguous() or tensor.is_neg():
            source = self._converted(tensor, dtype)
        if tensor.requires_grad and torch.is_grad_enabled():
            raise RecordingError(
                f"a tensor of shape {list(tensor.shape)} that requires a gradient is used where gradients are recorded",
                "inference",
                "with torch.no_grad(): ..., or tensor.detach()",
            )
        spec = spec_of(tensor.shape, dtype)
        size = spec.size
        if not size:
            raise NoElements
        try:
            address = source.data_ptr()
        except RuntimeError:  # of torch.func
            address = 0
        if not address:
            raise CellError("a tensor without memory")
        place = id(tensor)
        known = self._known.get(place)
        # What is there now may be another tensor, or have other numbers; if it has the same, it is the same.
        if known is not None and known[0] is spec:
            table, row, number = known[1:]
            if not _compare(table.address + row * table.bytes, address, table.bytes):
                return number
        table = self._tables.by_size.get(size) or self._tables.of(size)
        row = table.count
        if row == table.capacity:
            table.grow(row + 1)
        _copy(table.address + row * table.bytes, address, table.bytes)
        table.count = row + 1
        self.specs.append(spec)
        self.table.append(table.number)
        self.row.append(row)
        number = -len(self.specs)
        self._known[place] = spec, table, row, number
        return number

    def _converted(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        if dtype not in CODED or not tensor.is_cpu or tensor.layout is not torch.strided:
            raise CellError(
                f"an argument of a cell is a tensor of shape {list(tensor.shape)} of {dtype} on {tensor.device}",
                "torch.float32 on cpu (or integers, as attributes)",
                "convert the model with .float().cpu()",
            )
        return tensor.detach().to(float32).contiguous().resolve_neg()

    def flat(self, number: int) -> Tensor:
        """The numbers of a tensor, flat; memory of a table."""
        at = -1 - number
        return torch.from_numpy(self._tables[self.table[at]].rows[self.row[at]])

    def rows_of(self, numbers: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Those of `numbers` in one table after those in another: positions in `numbers`, and their rows."""
        known = self._places.shape[1]
        if known < len(self.row):
            later = np.array([self.table[known:], self.row[known:]], np.int64)
            self._places = np.concatenate([self._places, later], 1)
        table, row = self._places[:, -1 - numbers]
        return self._tables.rows_of(table, row)
