"""Tables of the values of a minibatch: rows of one size in one array, from which graphs read them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_FIRST_ROWS = 64


class Table:
    """Rows of one size; more are added at the end.

    Attributes
    ----------
    number : int
        Among the tables.
    rows : float32 array
    count, capacity : int
        Rows that are used, and that there is room for.
    address, bytes : int
        Where the rows lie, and how long each is.
    """

    __slots__ = ("address", "bytes", "capacity", "count", "number", "rows")

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.bytes = size * np.dtype(np.float32).itemsize
        self.count = 0
        self._use(np.empty((_FIRST_ROWS, size), np.float32))

    def _use(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.capacity = len(rows)
        self.address = rows.ctypes.data

    def grow(self, count: int) -> None:
        """Make room for `count` rows; views of the old ones keep their memory."""
        rows = np.empty((max(count, 2 * self.capacity), self.rows.shape[1]), np.float32)
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


def present(numbers: np.ndarray) -> list[int]:
    """The numbers that there are among small ones, each once."""
    found: list[int] = np.flatnonzero(np.bincount(numbers)).tolist()
    return found


class Tables:
    """One table for each size."""

    def __init__(self) -> None:
        self.by_size: dict[int, Table] = {}
        self._tables: list[Table] = []

    def __getitem__(self, number: int) -> Table:
        return self._tables[number]

    def of(self, size: int) -> Table:
        """The table of rows of this size."""
        table = self.by_size.get(size)
        if table is None:
            table = self.by_size[size] = Table(len(self._tables), size)
            self._tables.append(table)
        return table

    def rows_of(self, table: np.ndarray, row: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows by where they lie, those of one table together: their positions in `row`, and a copy of them."""
        for number in present(table):
            members = np.flatnonzero(table == number)
            yield members, self._tables[number].rows[row[members]]
