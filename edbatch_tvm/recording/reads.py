"""Rows of parameters in arrays, which are read again where elements run that were recorded before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from edbatch_tvm.graph.spec import ValueSpec


class Read(NamedTuple):
    """Rows of a parameter, or all of it, and where they are.

    Attributes
    ----------
    key : tuple
        What reads have in common that are joined.
    parameter : Tensor
    rows : int64 array or None
        None: all of it, at every place.
    array : int
        The number of the array that has them.
    places : int64 array
        Of each row, or of all of it.
    """

    key: tuple[int, bool, int]
    parameter: Tensor
    rows: np.ndarray | None
    array: int
    places: np.ndarray

    def into(self, array: np.ndarray, places: np.ndarray) -> None:
        """Read the numbers of now into these rows of an array."""
        numbers = self.parameter.detach().numpy()
        if self.rows is None:
            array[places] = numbers.reshape(1, -1)
        else:
            array[places] = numbers[self.rows].reshape(len(self.rows), -1)


def reads_of(places: Iterable[tuple[Tensor, int | None, int, int]]) -> list[Read]:
    """What is read, by parameter and array.

    Parameters
    ----------
    places : iterable of (Tensor, int or None, int, int)
        A row of a parameter, or all of it; the number of the array that has it, and its place.
    """
    groups: dict[tuple[int, bool, int], tuple[Tensor, list[int | None], list[int]]] = {}
    for parameter, row, array, place in places:
        group = groups.setdefault((id(parameter), row is None, array), (parameter, [], []))
        group[1].append(row)
        group[2].append(place)
    return [
        Read(key, parameter, None if key[1] else np.array(rows, np.int64), key[2], np.array(into, np.int64))
        for key, (parameter, rows, into) in groups.items()
    ]


def joined(several: Sequence[Sequence[Read]], begin: Sequence[int]) -> list[Read]:
    """What several lists read, as one list; the places of each list are counted from `begin`."""
    groups: dict[tuple[int, bool, int], list[tuple[Read, int]]] = {}
    for reads, first in zip(several, begin, strict=True):
        for one in reads:
            groups.setdefault(one.key, []).append((one, first))
    made = []
    for found in groups.values():
        key, parameter, rows, array, _ = found[0][0]
        if rows is not None:
            rows = np.concatenate([one.rows for one, _ in found if one.rows is not None])
        parts = [one.places for one, _ in found]
        places = np.concatenate(parts) + np.repeat([first for _, first in found], list(map(len, parts)))
        made.append(Read(key, parameter, rows, array, places))
    return made


def same_reads(left: Sequence[Read], right: Sequence[Read]) -> bool:
    """Whether two lists read the same at the same places."""
    return [one.key for one in left] == [one.key for one in right] and all(
        np.array_equal(one.places, other.places)
        and (one.rows is None or other.rows is None or np.array_equal(one.rows, other.rows))
        for one, other in zip(left, right, strict=True)
    )


class ReadKind(NamedTuple):
    """Rows of a parameter, or with `whole` all of it, as values of a spec."""

    parameter: Tensor
    whole: bool
    spec: ValueSpec


class ReadKinds:
    """What is read of parameters, numbered."""

    def __init__(self) -> None:
        self.kinds: list[ReadKind] = []
        self._numbers: dict[tuple[int, bool, ValueSpec], int] = {}

    def number(self, kind: ReadKind) -> int:
        """The number of a kind."""
        key = id(kind.parameter), kind.whole, kind.spec
        number = self._numbers.setdefault(key, len(self.kinds))
        if number == len(self.kinds):
            self.kinds.append(kind)
        return number


def packed_reads(reads: Sequence[Read], kinds: ReadKinds, specs: Sequence[ValueSpec], count: int) -> bytes:
    """What each of `count` external rows is: the number of its kind, and which row of the parameter."""
    table = np.zeros((count, 2), np.int64)
    for one in reads:
        table[one.places, 0] = kinds.number(ReadKind(one.parameter, one.rows is None, specs[one.array]))
        table[one.places, 1] = 0 if one.rows is None else one.rows
    return table.tobytes()


class Range(NamedTuple):
    """The numbers of one parameter: those of its rows, or one number for all of it."""

    parameter: Tensor
    whole: bool
    begin: int
    end: int


class NumberedReads:
    """External rows of a graph by what they are: those that are one row of a parameter have one number.

    Parameters
    ----------
    ranges : list of Range
        Rising, one behind the other from 0 on.
    numbers : int64 array
        Of each external row; one that is nothing of a parameter has its place, counted from the last range's end.
    """

    def __init__(self, ranges: list[Range], numbers: np.ndarray) -> None:
        self.ranges = ranges
        self.numbers = numbers
        self.end = ranges[-1].end if ranges else 0

    @classmethod
    def of(cls, reads: Sequence[Read], count: int) -> NumberedReads:
        """Those of what is read into `count` external rows."""
        ranges = ranges_of([(one.parameter, one.rows is None) for one in reads])
        numbers = np.arange(count) + (ranges[-1].end if ranges else 0)
        for one, own in zip(reads, ranges, strict=True):
            numbers[one.places] = own.begin if one.rows is None else own.begin + one.rows
        return cls(ranges, numbers)


def ranges_of(parameters: Iterable[tuple[Tensor, bool]]) -> list[Range]:
    """A range for each parameter, of which rows are read or, with True, all of it."""
    ranges: list[Range] = []
    end = 0
    for parameter, whole in parameters:
        begin, end = end, end + (1 if whole else parameter.shape[0])
        ranges.append(Range(parameter, whole, begin, end))
    return ranges
