"""Tables of the values of a minibatch: rows of one size in one array, from which graphs read them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cache
from sys import getrefcount
from typing import Any

import numpy as np
import torch

from edbatch_tvm.graph import FIRST_EXTERNAL, ZERO
from edbatch_tvm.graph.spec import Signature, ValueSpec
from edbatch_tvm.native.arguments import as_argument
from edbatch_tvm.native.build import load_library

_FIRST_ROWS = 64
_MOST_SPARE_BYTES = 1 << 26
_UNSHARED = 2
"""What ``getrefcount`` says of an array that a table holds alone."""


class Table:
    """Rows of one size; more are added at the end.

    Attributes
    ----------
    number : int
        Among the tables.
    rows : array of shape ``[capacity, size]``
    count, capacity : int
        Rows that are used, and that there is room for.
    address, bytes : int
        Where the rows lie, and how long each is.
    """

    __slots__ = ("address", "bytes", "capacity", "count", "number", "rows")

    def __init__(self, number: int, size: int, dtype: np.dtype, rows: np.ndarray | None = None) -> None:
        self.number = number
        self.bytes = size * dtype.itemsize
        self.count = 0
        self._use(np.empty((_FIRST_ROWS, size), dtype) if rows is None else rows)

    def _use(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.capacity = len(rows)
        self.address = rows.ctypes.data

    def grow(self, count: int) -> None:
        """Make room for `count` rows; views of the old ones keep their memory."""
        rows = np.empty((max(count, 2 * self.capacity), self.rows.shape[1]), self.rows.dtype)
        rows[: self.count] = self.rows[: self.count]
        self._use(rows)

    def add(self, rows: np.ndarray) -> int:
        """Copy rows to the end; the number of the first."""
        begin, end = self.count, self.count + len(rows)
        if end > self.capacity:
            self.grow(end)
        self.rows[begin:end] = rows
        self.count = end
        return begin


@cache
def _native(name: str) -> Any:
    """A function of ``native/tir/kept_values.py``."""
    return load_library("values")[name]


def numbered(calls: list[int], types: np.ndarray, signature: Signature) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nodes and values of a graph.

    Parameters
    ----------
    calls : list of int
        The cell of each.
    types : int16 array
        The type in the graph of each cell.
    signature : Signature

    Returns
    -------
    node_type : int16 array
    ids, arenas : int32 arrays
        What each value is called, and the arena that it is in.
    """
    node_type = np.empty(len(calls), np.int16)
    if not calls:
        return node_type, np.empty(0, np.int32), np.empty(0, np.int32)
    values, total = np.empty((2, len(calls) * signature.stride), np.int32), np.zeros(1, np.int32)
    _native("number")(np.array(calls, np.int64), types, signature.output_arena, node_type, values, total)
    ids, arenas = values[:, : total.item()]
    return node_type, ids, arenas


def _never_empty(places: np.ndarray) -> np.ndarray:
    """Places of values; of one that there is not, for none: TVM refuses what may have no address."""
    return places if places.shape[1] else np.zeros((2, 1), np.int64)


def _in_rows(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The same array, or a copy whose rows lie as compiled code reads them."""
    if array.dtype == dtype and array.strides[1] == array.itemsize:
        return array
    return np.ascontiguousarray(array, dtype)


def present(numbers: np.ndarray) -> list[int]:
    """The numbers that there are among small ones, each once."""
    found: list[int] = np.flatnonzero(np.bincount(numbers)).tolist()
    return found


class Tables:
    """One table for each size.

    Parameters
    ----------
    dtype : torch.dtype
        Of the numbers in rows.
    spare : dict of int to array, optional
        Memory of earlier tables, by size. It is taken for new ones, and theirs is left there in the end: fresh memory
        costs a minibatch more than to copy into it.
    """

    def __init__(self, dtype: torch.dtype, spare: dict[int, np.ndarray] | None = None) -> None:
        self.dtype = dtype
        self.rows_dtype = np.dtype(str(dtype).removeprefix("torch."))
        self.by_size: dict[int, Table] = {}
        self._tables: list[Table] = []
        self._spare = {} if spare is None else spare

    def __del__(self) -> None:
        # Not when a minibatch ends: tensors that live on may read the tables, and others be views of them.
        while self._tables:
            table = self._tables.pop()
            if getrefcount(table.rows) == _UNSHARED and table.rows.nbytes <= _MOST_SPARE_BYTES:
                self._spare[table.rows.shape[1]] = table.rows

    def __getitem__(self, number: int) -> Table:
        return self._tables[number]

    def __iter__(self) -> Iterator[Table]:
        return iter(self._tables)

    @property
    def bytes(self) -> int:
        """Bytes of all rows."""
        return sum(table.count * table.bytes for table in self._tables)

    def of(self, size: int) -> Table:
        """The table of rows of this size."""
        table = self.by_size.get(size)
        if table is None:
            table = self.by_size[size] = Table(len(self._tables), size, self.rows_dtype, self._spare.pop(size, None))
            self._tables.append(table)
        return table

    def rows_of(self, table: np.ndarray, row: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows by where they lie, those of one table together: their positions in `row`, and a copy of them."""
        for number in present(table):
            members = np.flatnonzero(table == number)
            yield members, self._tables[number].rows[row[members]]

    # For many values at once, by compiled code ---------------------------------------------------------------------

    def _described(self, last: Sequence[int]) -> np.ndarray:
        """The address and the bytes of the rows of every table, and what `last` has for it."""
        parts = [(one.address, one.bytes, number) for one, number in zip(self._tables, last, strict=True)]
        return np.array(parts, np.int64).reshape(-1, 3)

    def keep(self, group: np.ndarray, row: np.ndarray, arrays: Sequence[np.ndarray | None]) -> np.ndarray:
        """Copy rows of arrays to the ends of tables.

        Parameters
        ----------
        group, row : int array
            The array of each, and the row of it.
        arrays : sequence of array
            Rows one after another; None where there is no row.

        Returns
        -------
        int64 array
            The tables, and the rows in them.
        """
        places = np.empty((2, len(group)), np.int64)
        if not len(group):
            return places
        counts = np.bincount(group, minlength=len(arrays)).tolist()
        arrays = [None if array is None else _in_rows(array, self.rows_dtype) for array in arrays]
        own = [None if array is None else self.of(array.shape[1]) for array in arrays]
        groups = np.zeros((len(arrays), 3), np.int64)
        grown = [table.count for table in self._tables]
        for number, (array, table, count) in enumerate(zip(arrays, own, counts, strict=True)):
            if array is not None and table is not None:
                groups[number] = array.__array_interface__["data"][0], array.strides[0], table.number
                grown[table.number] += count
        for table, count in zip(self._tables, grown, strict=True):
            if count > table.capacity:
                table.grow(count)
        before = self._described([table.count for table in self._tables])
        _native("keep")(as_argument(group), as_argument(row), groups, before, places)
        for table, count in zip(self._tables, grown, strict=True):
            table.count = count
        return places

    def operands(
        self,
        signature: Signature,
        values: np.ndarray,
        done: int,
        ids: np.ndarray,
        outside: np.ndarray,
        earlier: np.ndarray,
        rows: Collection[int] = (),
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """What calls read as operands of a graph: values of the graph, the zero state, and external rows.

        Parameters
        ----------
        signature : Signature
        values : int64 array
            Numbers of values: those from `done` on are of the graph, which has `ids` for them; negative ones are
            tensors from outside.
        outside, earlier : int64 arrays
            Where tensors from outside and values before `done` lie: tables, and rows in them.
        rows : collection of int
            Tensors from outside that are external rows even if they are zeros: a gradient is wanted of them, or their
            numbers will be read again.

        Returns
        -------
        operands : int32 array
        external : dict
            The external rows of the graph.
        """
        found = np.empty(len(values), np.int32)
        if not len(values):
            return found, {}
        outside, earlier = _never_empty(outside), _never_empty(earlier)
        arenas = [
            signature.find_arena(ValueSpec((table.rows.shape[1],), str(self.rows_dtype))) for table in self._tables
        ]
        tables = np.zeros((max(1, len(arenas)), 4), np.int64)
        if arenas:
            tables[:, :3] = self._described(arenas)
        names = np.zeros(outside.shape[1] + earlier.shape[1], np.int32)
        if rows:
            names[-1 - np.fromiter(rows, np.int64, len(rows))] = 1
        spec, external = np.empty(len(values), np.int16), np.empty((3, len(values)), np.int32)
        total = np.zeros(1, np.int32)
        own = ids if len(ids) else np.zeros(1, np.int32)
        fixed = done, ZERO, FIRST_EXTERNAL
        _native("find")(*fixed, values, own, outside, earlier, tables, names, found, spec, external, total)
        count = total.item()
        if not count:
            return found, {}
        data = [np.empty((0, *one.shape), one.dtype) for one in signature.value_specs]
        targets = np.zeros(len(tables), np.int64)
        for number, (arena, rows) in enumerate(tables[:, 2:].tolist()):
            if rows:
                one = signature.value_specs[arena]
                data[arena] = np.empty((rows, *one.shape), one.dtype)
                targets[number] = data[arena].__array_interface__["data"][0]
        _native("copy")(count, external, tables, targets)
        return found, {
            "external_spec": spec[:count],
            "external_row": external[0, :count].copy(),
            "external_data": tuple(data),
        }
