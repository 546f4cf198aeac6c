"""Rows of parameters in arrays, which are read again where elements run that were recorded before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor


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
