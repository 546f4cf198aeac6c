"""Gradients of weights: one contraction, sum or scatter over all nodes of a cell, from rows of arenas, by NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edbatch_tvm.training.row_sources import GroupRows, Place
from relay_ext.gradients.adjoint_cells import Source, WeightTerm


@dataclass(eq=False)
class Sums:
    """The gradient of one expression of weights, as it grows.

    Attributes
    ----------
    dense : array or None
    index : int64 array or None
        Rows of a table, rising, each once.
    rows : array or None
        What is added to them: ``[m, elements of a row]``.
    """

    dense: np.ndarray | None = None
    index: np.ndarray | None = None
    rows: np.ndarray | None = None

    def add(self, part: np.ndarray) -> None:
        """Add to all of it."""
        self.dense = part if self.dense is None else self.dense.reshape(part.shape) + part

    def add_rows(self, index: np.ndarray, rows: np.ndarray) -> None:
        """Add to rows of a table: rising numbers, each once."""
        if self.index is not None and self.rows is not None:
            index, rows = sum_rows(np.concatenate((self.index, index)), np.concatenate((self.rows, rows)))
        self.index, self.rows = index, rows

    def total(self, shape: Sequence[int]) -> np.ndarray:
        """All of it as one array of the shape of the expression."""
        dense = None if self.dense is None else self.dense.reshape(shape)
        if self.index is None or self.rows is None:
            return np.zeros(shape, np.float32) if dense is None else dense
        total = np.zeros(shape, self.rows.dtype) if dense is None else dense.copy()
        total[self.index] += self.rows.reshape(len(self.index), *shape[1:])
        return total


def with_numpy(groups: Sequence[GroupRows]) -> dict[str, Sums]:
    """The gradients of all expressions of weights, by NumPy."""
    sums: dict[str, Sums] = {}
    tables: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for rows in groups:
        products: dict[Source, list[WeightTerm]] = {}
        for term in rows.terms:
            if term.kind == "sum":
                sums.setdefault(term.expression, Sums()).add(sum_of_rows(rows, term.right))
            elif term.kind == "product":
                assert term.left is not None
                products.setdefault(term.left, []).append(term)
            else:
                assert term.left is not None
                index = table_index(rows, term.left)
                parts = _matrix(rows.places(term.right)).reshape(index.size, -1)
                tables.setdefault(term.expression, []).append((index, parts))
        for left, terms in products.items():
            # One contraction for all that are multiplied with the same rows.
            right = [_matrix(rows.places(term.right)) for term in terms]
            total = _matrix(rows.places(left)).T @ _side_by_side(right)
            widths = [part.shape[1] for part in right]
            for term, part in zip(terms, np.split(total, np.cumsum(widths)[:-1], axis=1), strict=True):
                sums.setdefault(term.expression, Sums()).add(part)
    for expression, found in tables.items():
        index, rows_of_table = (np.concatenate(one) for one in zip(*found, strict=True))
        sums.setdefault(expression, Sums()).add_rows(*sum_rows(index, rows_of_table))
    return sums


def sum_of_rows(rows: GroupRows, source: Source) -> np.ndarray:
    """The sum of the rows of a source over all nodes."""
    places = rows.places(source)
    total: np.ndarray = _matrix(places).reshape(len(places[0].rows), -1).sum(axis=0)
    return total


def table_index(rows: GroupRows, source: Source) -> np.ndarray:
    """The rows of a table that the nodes read, in their order."""
    return rows.attribute(source.number).astype(np.int64).ravel()


def sum_rows(index: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one number added up, in their order; the rows themselves where each has a number of its own."""
    if (index[1:] > index[:-1]).all():
        return index, parts
    order = rising_order(index)
    index, parts = index[order], parts[order]
    starts = distinct_starts(index)
    return (index, parts) if len(starts) == len(index) else (index[starts], np.add.reduceat(parts, starts, axis=0))


def rising_order(index: np.ndarray) -> np.ndarray:
    """The order in which numbers rise; equal ones stay in theirs. NumPy sorts short integers by their digits."""
    short = len(index) and index.max() < 1 << 16
    order: np.ndarray = np.argsort(index.astype(np.uint16) if short else index, kind="stable")
    return order


def distinct_starts(index: np.ndarray) -> np.ndarray:
    """Where each number begins among those that are sorted."""
    starts: np.ndarray = np.flatnonzero(np.diff(index, prepend=-1))
    return starts


def _matrix(places: Sequence[Place]) -> np.ndarray:
    """The vectors of places, side by side."""
    return _side_by_side([place.memory[place.rows].reshape(-1, place.width) for place in places])


def _side_by_side(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
