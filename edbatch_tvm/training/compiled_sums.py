"""Gradients of weights by the compiled kernel, which reads rows where they lie; nothing is copied here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from edbatch_tvm.training.gradient_kernel import GradientKernel, GradientKernels, GradientTables
from edbatch_tvm.training.gradient_layout import (
    DTYPES,
    Columns,
    GradientLayout,
    Rows,
    Table,
    TypeTerms,
    VectorTable,
    dtypes_of,
    vector_table,
)
from edbatch_tvm.training.row_sources import GroupRows
from edbatch_tvm.training.weight_sums import Sums, distinct_starts, sum_of_rows, table_index, with_numpy
from schedules.cpu.weight_gradients import BLOCK, FIRST_PART, LAST_PART

_MOST_SUMS = 1 << 22
"""Elements of a product whose sums are in the workspace at once, about: the columns of a larger one take turns."""


class CompiledSums:
    """Gradients of weights for nodes of given types.

    Parameters
    ----------
    types : sequence of TypeTerms
        In the order of the groups of nodes.
    kernels : GradientKernels
    """

    def __init__(self, types: Sequence[TypeTerms], kernels: GradientKernels) -> None:
        layouts: dict[str, GradientLayout] = {}
        self._others = []
        for place, terms in enumerate(types):
            dtypes = dtypes_of(terms)
            if len(dtypes) == 1 and dtypes <= set(DTYPES):
                layouts.setdefault(dtypes.pop(), GradientLayout()).add(place, terms)
            else:
                self._others.append(place)
        self._each = [_OfDtype(kernels.of(dtype), layout) for dtype, layout in layouts.items()]

    def compute(self, groups: Sequence[GroupRows]) -> dict[str, Sums]:
        """The gradients of all expressions of weights, from the rows of the nodes of each type."""
        sums = with_numpy([groups[place] for place in self._others])
        for one in self._each:
            one.compute(groups, sums)
        return sums


class _OfDtype:
    def __init__(self, kernel: GradientKernel, layout: GradientLayout) -> None:
        self._kernel = kernel
        self._layout = layout
        self._dtype = np.dtype(kernel.dtype)
        self._table: VectorTable = vector_table(layout, kernel.tiles, self._dtype.itemsize)
        products = [product.rows for product in layout.products]
        self._columns = [column for rows in products for column in rows]
        self._first_columns = list(accumulate(map(len, products), initial=0))

    def compute(self, groups: Sequence[GroupRows], sums: dict[str, Sums]) -> None:
        table = self._table
        rows, starts, lengths = [], [], []
        begin = 0
        for column in self._columns:
            starts.append(begin)
            for one in column:
                found = _addresses(groups, one)
                rows.append(found)
                begin += len(found)
            lengths.append(begin - starts[-1])
        gradients = [np.empty(size, self._dtype) for _, size in table.gradients]
        vectors = table.at(np.array(starts), gradients) if lengths else table.vectors
        steps, room, multiplies = self._steps(lengths)
        segments: list[np.ndarray] = []
        tables: list[tuple[int, int, int, int, int]] = []
        found_tables = []
        for one_table in self._layout.tables:
            index, out, entries, own = self._sum_table(one_table, groups, begin, sum(map(len, segments)))
            rows += own
            begin += sum(map(len, own))
            segments += entries[0]
            tables += entries[1]
            found_tables.append((one_table.expression, index, out))
        self._kernel.run(
            GradientTables(
                np.concatenate(rows) if begin else np.zeros(1, np.int64),
                steps,
                vectors,
                np.concatenate(segments) if segments else np.zeros(1, np.int64),
                np.array(tables or [(0,) * 5], np.int64),
                room,
                multiplies,
            )
        )
        for (name, _), gradient in zip(table.gradients[1:], gradients[1:], strict=True):
            sums.setdefault(name, Sums()).add(gradient)
        for place, term in self._layout.others:
            sums.setdefault(term.expression, Sums()).add(sum_of_rows(groups[place], term.right))
        for name, index, out in found_tables:
            sums.setdefault(name, Sums()).add_rows(index, out)

    def _steps(self, lengths: Sequence[int]) -> tuple[np.ndarray, int, int]:
        """The table of steps, the room they need, and the multiplications."""
        tiles = self._kernel.tiles
        found, room, multiplies = [], 1, 0
        for column, (first, lefts, rights) in zip(self._first_columns, self._table.sides, strict=False):
            nodes = lengths[column]
            turn = max(tiles.vectors, _MOST_SUMS // max(1, lefts * tiles.lanes**2))
            last = max(nodes - 1, 0) // BLOCK
            for begin in range(0, rights, turn):
                some = min(turn, rights - begin)
                right = first + lefts + begin
                for block in range(last + 1):
                    part = FIRST_PART * (block == 0) + LAST_PART * (block == last)
                    count = min(nodes - block * BLOCK, BLOCK)
                    found.append((block * BLOCK, count, first, lefts, right, some, part))
                room = max(room, tiles.room(lefts, some))
                multiplies += nodes * lefts * some * tiles.lanes**2
        return np.array(found or [(0,) * 7], np.int64), room, multiplies

    def _sum_table(
        self, table: Table, groups: Sequence[GroupRows], first: int, first_segment: int
    ) -> tuple[np.ndarray, np.ndarray, tuple[list[np.ndarray], list[tuple[int, int, int, int, int]]], list[np.ndarray]]:
        """The rows of a table that have a gradient, these, entries of the kernel's tables, and the rows to be added."""
        index = np.concatenate([table_index(groups[place], source) for place, source in table.reads])
        order = np.argsort(index, kind="stable")
        index = index[order]
        starts = distinct_starts(index)
        out = np.empty((len(starts), sum(table.widths)), self._dtype)
        rows, segments, entries, column = [], [], [], 0
        for width, own in zip(table.widths, table.rows, strict=True):
            rows.append(np.concatenate([_addresses(groups, one) for one in own])[order])
            segments += [first + starts, np.array([first + len(index)])]
            address = int(out.__array_interface__["data"][0]) + column * self._dtype.itemsize
            entries.append((len(starts), first_segment, width, address, out.strides[0]))
            first += len(index)
            first_segment += len(starts) + 1
            column += width
        return index[starts], out, (segments, entries), rows


def _addresses(groups: Sequence[GroupRows], rows: Rows) -> np.ndarray:
    """The addresses of vectors, row after row."""
    memory, numbers, _ = groups[rows.place].place(rows.source)
    begin: np.ndarray = numbers * memory.strides[0] + memory.__array_interface__["data"][0]
    if rows.each != 1:
        begin = (begin[:, None] + np.arange(rows.each) * (rows.width * memory.itemsize)).ravel()
    return begin


def product_tables(
    kernel: GradientKernel, left: np.ndarray, left_rows: np.ndarray, right: np.ndarray, right_rows: np.ndarray
) -> tuple[GradientTables, np.ndarray]:
    """The kernel's tables of one product of rows of matrices, and the array that it writes; to measure it alone."""
    layout = GradientLayout()
    layout.add_product([Columns(left.shape[1])], [Columns(right.shape[1], 0, right.shape[1], "product")], [])
    table = vector_table(layout, kernel.tiles, left.itemsize)
    product = np.empty((left.shape[1], right.shape[1]), left.dtype)
    nodes = len(left_rows)
    sides = ((left, left_rows), (right, right_rows))
    rows = [numbers * side.strides[0] + side.__array_interface__["data"][0] for side, numbers in sides]
    vectors = table.at(np.array([0, nodes]), [np.empty(0, product.dtype), product])
    one = _OfDtype(kernel, layout)
    steps, room, multiplies = one._steps([nodes])
    none = np.zeros((1, 5), np.int64)
    return GradientTables(np.concatenate(rows), steps, vectors, none[0], none, room, multiplies), product
