"""What has been computed: values of the last round where they were computed, earlier ones as copies in tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edbatch_tvm.recording.value_tables import Tables, present

if TYPE_CHECKING:
    from edbatch_tvm.recording.lazy import LazyTensor
    from edbatch_tvm.recording.rounds import RoundValues


class Round:
    """The values of one round, numbered from `first`.

    Attributes
    ----------
    first : int
    group, row : int arrays
        Where each lies: in which array, and in which row of it.
    array : callable
        The array of a group.
    """

    def __init__(self, first: int, group: np.ndarray, row: np.ndarray, array: Callable[[int], np.ndarray]) -> None:
        self.first = first
        self.group = group
        self.row = row
        self.array = array
        self._tensors: dict[int, torch.Tensor] = {}

    def tensor(self, value: int) -> torch.Tensor:
        """One value, flat: memory of its array."""
        group = self.group.item(value - self.first)
        array = self._tensors.get(group)
        if array is None:
            array = self._tensors[group] = torch.from_numpy(self.array(group))
        return array[self.row.item(value - self.first)]

    def rows_of(self, values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Values that lie together, together: positions in `values`, and a copy of their rows."""
        within = values - self.first
        group, row = self.group[within], self.row[within]
        for one in present(group):
            members = np.flatnonzero(group == one)
            yield members, self.array(one)[row[members]]


_NONE = Round(0, np.empty(0, np.int64), np.empty(0, np.int64), lambda _group: np.empty((0, 0), np.float32))


class Computed:
    """All computed values of a minibatch.

    Attributes
    ----------
    last : Round or RoundValues
        What lies where it was computed: the last round, or all rounds since one that was not in compiled code.
    rounds : RoundValues or None
        The values of rounds in compiled code, which later ones read.
    """

    def __init__(self, tables: Tables) -> None:
        self.last: Round | RoundValues = _NONE
        self.rounds: RoundValues | None = None
        self._tables = tables
        self._places = np.empty((2, 0), np.int64)

    def branch(self) -> Computed:
        """The same values; others may follow."""
        self.keep()
        own = Computed(self._tables)
        own._places = self._places
        return own

    def places(self, first: int = 0) -> np.ndarray:
        """Where the values from `first` on lie: tables, and rows in them."""
        self.keep()
        return self._places[:, first:]

    def finish(self, found: Round | RoundValues | np.ndarray) -> None:
        """Take the values of a round, or the places in the tables where they lie; those before are kept."""
        if found is self.last:  # its arenas have these, too
            return
        self.keep()
        if isinstance(found, np.ndarray):
            self._places = np.concatenate([self._places, found], 1)
            return
        self.last = found
        if not isinstance(found, Round):
            found.first = self._places.shape[1]

    def keep(self) -> None:
        """Copy the values of the last round into tables, so that what they lie in can be used again."""
        last = self.last
        if last is _NONE:
            return
        groups, rows = (last.group, last.row) if isinstance(last, Round) else last.all_places()
        counts = np.bincount(groups).tolist()
        arrays = [last.array(group) if count else None for group, count in enumerate(counts)]
        self._places = np.concatenate([self._places, self._tables.keep(groups, rows, arrays)], 1)
        self.last = _NONE

    def tensor(self, value: int) -> torch.Tensor:
        """One value, flat; memory of what it lies in."""
        if self.last is not _NONE and value >= self.last.first:
            return self.last.tensor(value)
        table, row = self._places[:, value].tolist()
        return torch.from_numpy(self._tables[table].rows[row])

    def table_of(self, values: list[int], size: int) -> np.ndarray | None:
        """A copy of the rows of values of one size; None if compiled code does not have them all."""
        return None if isinstance(self.last, Round) else self.last.table_of(values, size)

    def extremes_of(self, asked: Sequence[tuple[Any, LazyTensor]]) -> tuple[list[int], np.ndarray] | None:
        """Values, and the places of the largest or smallest numbers of each; None if compiled code does not know."""
        return None if isinstance(self.last, Round) else self.last.extremes_of(asked)

    def rows_of(self, values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Values that lie together, together: positions in `values`, and a copy of their rows."""
        known = self._places.shape[1]
        earlier = values < known
        if earlier.all():
            yield from self._tables.rows_of(*self._places[:, values])
        elif not earlier.any():
            yield from self.last.rows_of(values)
        else:
            for one, members in ((True, np.flatnonzero(earlier)), (False, np.flatnonzero(~earlier))):
                found = (
                    self._tables.rows_of(*self._places[:, values[members]])
                    if one
                    else self.last.rows_of(values[members])
                )
                for within, rows in found:
                    yield members[within], rows
