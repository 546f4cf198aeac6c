"""Rows of parameters in arrays, which are read again where elements run that were recorded before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from torch.nn import Parameter


class _Read(NamedTuple):
    """Rows of a parameter, or all of it (None), and where they go."""

    parameter: Parameter
    rows: np.ndarray | None
    array: int
    places: np.ndarray


class Reads:
    """What is read again of parameters.

    Parameters
    ----------
    places : iterable of (Parameter, int or None, int, int)
        A row of a parameter, or all of it; the number of the array that has it, and the row there.
    """

    def __init__(self, places: Iterable[tuple[Parameter, int | None, int, int]]) -> None:
        groups: dict[tuple[int, bool, int], tuple[Parameter, list[int | None], list[int]]] = {}
        for parameter, row, array, place in places:
            group = groups.setdefault((id(parameter), row is None, array), (parameter, [], []))
            group[1].append(row)
            group[2].append(place)
        self._reads = [
            _Read(parameter, None if whole else np.array(rows, np.int64), array, np.array(into, np.int64))
            for (_, whole, array), (parameter, rows, into) in groups.items()
        ]

    @classmethod
    def into_joined(cls, parts: Iterable[tuple[Reads, Sequence[int]]], arrays: Sequence[np.ndarray]) -> None:
        """Read all that several read into arrays that are theirs one after the other.

        Parameters
        ----------
        parts : iterable of (Reads, sequence of int)
            Where the rows of each begin in the arrays.
        arrays : sequence of array
        """
        groups: dict[tuple[int, bool, int], tuple[list[_Read], list[int]]] = {}
        for reads, starts in parts:
            for one in reads._reads:
                group = groups.setdefault((id(one.parameter), one.rows is None, one.array), ([], []))
                group[0].append(one)
                group[1].append(starts[one.array])
        for found, begin in groups.values():
            first = found[0]
            rows = None if first.rows is None else np.concatenate([one.rows for one in found if one.rows is not None])
            _read(
                _Read(first.parameter, rows, first.array, shifted([one.places for one in found], begin)),
                arrays[first.array],
            )


def _read(one: _Read, array: np.ndarray) -> None:
    numbers = one.parameter.detach().numpy()
    if one.rows is None:
        array[one.places] = numbers.reshape(1, -1)
    else:
        array[one.places] = numbers[one.rows].reshape(len(one.rows), -1)


def shifted(places: Sequence[np.ndarray], begin: Sequence[int]) -> np.ndarray:
    """Numbers within parts, of which each begins somewhere, as numbers within all."""
    return np.concatenate(places) + np.repeat(begin, list(map(len, places)))


class RowGradients(NamedTuple):
    """Which external rows of a graph are rows of parameters that get a gradient.

    Attributes
    ----------
    parameter : Parameter
    rows : int64 array
        Of the parameter.
    external : int64 array
        The external row of each.
    """

    parameter: Parameter
    rows: np.ndarray
    external: np.ndarray

    @classmethod
    def of(cls, places: Iterable[tuple[Parameter, int, int]]) -> list[RowGradients]:
        """By parameter; of each place the parameter, its row and the external row."""
        groups: dict[int, tuple[Parameter, list[int], list[int]]] = {}
        for parameter, row, external in places:
            group = groups.setdefault(id(parameter), (parameter, [], []))
            group[1].append(row)
            group[2].append(external)
        return [cls(one, np.array(rows, np.int64), np.array(at, np.int64)) for one, rows, at in groups.values()]
