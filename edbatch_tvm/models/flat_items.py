"""Trees, sentences and lattices of a whole file or minibatch as a few arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

Self = TypeVar("Self", bound="FlatItems")


class FlatItems(Protocol):
    """Items in arrays; `edbatch_tvm.models.flatten` makes them of a list of items."""

    def __len__(self) -> int:
        """The number of items."""

    def part(self: Self, begin: int, end: int) -> Self:
        """Items `begin` to `end`."""


@dataclass(frozen=True, eq=False)
class FlatSequences:
    """Sequences of integers: trees in postfix form, or sentences.

    Attributes
    ----------
    values : int32 array of shape [ptr[-1]]
    ptr : int32 array of shape [items + 1]
        Where each begins.
    """

    values: np.ndarray
    ptr: np.ndarray

    def __len__(self) -> int:
        return len(self.ptr) - 1

    def part(self, begin: int, end: int) -> FlatSequences:
        """Sequences `begin` to `end`."""
        ptr = self.ptr[begin : end + 1]
        return FlatSequences(self.values[ptr[0] : ptr[-1]], ptr - ptr[0])

    def without_empty(self) -> FlatSequences:
        """The sequences that are not empty."""
        return FlatSequences(self.values, np.unique(self.ptr))


@dataclass(frozen=True, eq=False)
class FlatPairs:
    """Pairs of sequences."""

    source: FlatSequences
    target: FlatSequences

    def __len__(self) -> int:
        return len(self.source)

    def part(self, begin: int, end: int) -> FlatPairs:
        """Pairs `begin` to `end`."""
        return FlatPairs(self.source.part(begin, end), self.target.part(begin, end))


@dataclass(frozen=True, eq=False)
class FlatLattices:
    """Word lattices.

    Attributes
    ----------
    sources, labels : int32 arrays of shape [arcs]
        The node, counted in its lattice, that each arc comes from; and its label.
    arc_ptr : int32 array of shape [nodes + 1]
        Where the arcs into each node begin.
    ptr : int32 array of shape [items + 1]
        Where the nodes of each lattice begin.
    """

    sources: np.ndarray
    labels: np.ndarray
    arc_ptr: np.ndarray
    ptr: np.ndarray

    def __len__(self) -> int:
        return len(self.ptr) - 1

    def part(self, begin: int, end: int) -> FlatLattices:
        """Lattices `begin` to `end`."""
        ptr = self.ptr[begin : end + 1]
        arc_ptr = self.arc_ptr[ptr[0] : ptr[-1] + 1]
        arcs = slice(arc_ptr[0], arc_ptr[-1])
        return FlatLattices(self.sources[arcs], self.labels[arcs], arc_ptr - arc_ptr[0], ptr - ptr[0])


def offsets(counts: np.ndarray) -> np.ndarray:
    """Where groups of these sizes begin, int32[groups + 1]."""
    ptr = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=ptr[1:])
    return ptr


def positions(begins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The numbers ``begins[g], begins[g] + 1, ...``, ``counts[g]`` of them, of all groups one after the other.

    Examples
    --------
    >>> positions(np.array([5, 0]), np.array([2, 3]))
    array([5, 6, 0, 1, 2])
    """
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(begins - (ends - counts), counts)
