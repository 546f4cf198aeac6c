"""The vectors that the kernel of weight gradients cuts the sides of products into, and where their results go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edbatch_tvm.training.gradient_layout import GradientLayout
from edbatch_tvm.training.gradient_places import GradientPlaces, InWeight
from schedules.cpu.weight_gradients import ADD, ADDRESSES, OFFSET, OUT, STRIDE, TOTAL, TOTAL_ADD, WIDTH, Tiles

_OF_THEIR_OWN = GradientPlaces()


class VectorTable(NamedTuple):
    """The kernel's table of vectors, but for addresses: outputs and totals are bytes from where a gradient begins.

    Attributes
    ----------
    vectors : int64 array
    columns : int array
        For each vector the columns that it is of, numbered through all products.
    outputs, totals : int array
        For each vector the gradients that it adds to, numbers in `gradients`; 0 for none, as in the rows of the left.
    gradients : list of (str, int)
        The expressions and the elements of their gradients; the first is none.
    sides : list of (int, int, int)
        For each product the first of its vectors, and the numbers of the left and of the right ones.
    """

    vectors: np.ndarray
    columns: np.ndarray
    outputs: np.ndarray
    totals: np.ndarray
    gradients: list[tuple[str, int]]
    sides: list[tuple[int, int, int]]

    def at(self, starts: np.ndarray, gradients: Sequence[np.ndarray]) -> np.ndarray:
        """The kernel's table.

        Parameters
        ----------
        starts : int64 array
            For each columns the first of their rows.
        gradients : sequence of array
            Where gradients go; the first is not written.
        """
        addresses = np.array([0, *(one.__array_interface__["data"][0] for one in gradients[1:])])
        vectors = self.vectors.copy()
        vectors[:, ADDRESSES] = starts[self.columns]
        vectors[:, TOTAL] += addresses[self.totals]
        vectors[:, OUT] += addresses[self.outputs]
        return vectors


def vector_table(
    layout: GradientLayout, tiles: Tiles, itemsize: int, inside: GradientPlaces = _OF_THEIR_OWN
) -> VectorTable:
    """The table of the vectors of a layout; gradients of parts of weights go where `inside` says."""
    places: dict[str, int] = {"": 0}
    sizes = [("", 0)]
    vectors, sides = [], []
    places_of: tuple[list[np.ndarray], ...] = ([], [], [])  # columns, outputs, totals
    number = first = 0

    def place_of(name: str | None, size: int, written: set[str]) -> tuple[int, int, InWeight | None]:
        """The number of a gradient, whether an earlier product wrote it, and where it lies in another one."""
        if name is None:
            return 0, 0, None
        part = inside.parts.get(name)
        whole, size = (name, size) if part is None else (part.weight, inside.sizes[part.weight])
        if whole not in places:
            places[whole] = len(sizes)
            sizes.append((whole, size))
        add = int(name in done)
        written.add(name)
        return places[whole], add, part

    done: set[str] = set()
    for product in layout.products:
        written: set[str] = set()
        rows = sum(side.width for side in product.left)
        row, counts = 0, [0, 0]
        for right, side in ((right, side) for right, sides_ in enumerate(product[:2]) for side in sides_):
            cut = _cut(side.width, tiles.lanes, itemsize)
            out, add, part = place_of(side.expression, rows * side.whole, written)
            total, total_add, total_part = place_of(side.total, side.whole, written)
            if right:
                column = cut[:, OFFSET] + side.begin * itemsize
                cut[:, OUT] = column + (0 if part is None else part.begin * itemsize)
                cut[:, STRIDE] = (side.whole if part is None else part.stride) * itemsize
                if side.total is not None:
                    cut[:, TOTAL] = column + (0 if total_part is None else total_part.begin * itemsize)
                cut[:, ADD], cut[:, TOTAL_ADD] = add, total_add
            else:
                cut[:, OUT] = row + cut[:, OFFSET] // itemsize
                row += side.width
            vectors.append(cut)
            for array, value in zip(places_of, (number, out, total), strict=True):
                array.append(np.full(len(cut), value))
            counts[right] += len(cut)
            number += 1
        sides.append((first, counts[0], counts[1]))
        first += sum(counts)
        done |= written
    if not vectors:
        return VectorTable(np.zeros((1, 8), np.int64), *(np.zeros(1, np.int64),) * 3, sizes, [])
    columns, outputs, totals = (np.concatenate(one) for one in places_of)
    return VectorTable(np.concatenate(vectors), columns, outputs, totals, sizes, sides)


def _cut(width: int, lanes: int, itemsize: int) -> np.ndarray:
    """The vectors that columns are cut into."""
    count = -(-width // lanes)
    vectors = np.zeros((count, 8), np.int64)
    vectors[:, OFFSET] = np.arange(count) * (lanes * itemsize)
    vectors[:, WIDTH] = np.minimum(width - np.arange(count) * lanes, lanes)
    return vectors
