"""Gradients of weights by the compiled kernel, which reads rows where they lie; nothing is copied here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import numpy as np

from edbatch_tvm.graph import Signature
from edbatch_tvm.native.backward_tables import BackwardSteps
from edbatch_tvm.training.gradient_kernel import GradientKernel, GradientKernels, GradientTables
from edbatch_tvm.training.gradient_layout import (
    DTYPES,
    Columns,
    GradientLayout,
    Table,
    TypeTerms,
    dtypes_of,
)
from edbatch_tvm.training.gradient_places import GradientPlaces, gradient_places
from edbatch_tvm.training.planned_sums import PlannedSums, Step
from edbatch_tvm.training.row_sources import PassRows
from edbatch_tvm.training.term_rows import TermRows
from edbatch_tvm.training.vector_table import VectorTable, vector_table
from edbatch_tvm.training.weight_sums import Sums, distinct_starts, rising_order, sum_of_rows, with_numpy
from relay_ext.gradients.weight_expressions import WeightExpression

_MOST_SUMS = 1 << 22
"""Elements of a product whose sums are in the workspace at once, about: the columns of a larger one take turns."""

_NONE = np.zeros(1, np.int64)
"""In place of no addresses."""


class CompiledSums:
    """Gradients of weights for nodes of given types.

    Parameters
    ----------
    types : sequence of TypeTerms
        In the order of the groups of nodes.
    forward, backward : Signature
    kernels : GradientKernels
    expressions : mapping of str to WeightExpression
        What types contribute to.
    shapes : mapping of str to tuple of int
        Of all weights.
    """

    def __init__(
        self,
        types: Sequence[TypeTerms],
        forward: Signature,
        backward: Signature,
        kernels: GradientKernels,
        expressions: Mapping[str, WeightExpression],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        layouts: dict[str, GradientLayout] = {}
        self._others = []
        for place, terms in enumerate(types):
            if not terms.terms:
                continue
            dtypes = dtypes_of(terms)
            if len(dtypes) == 1 and dtypes <= set(DTYPES):
                layouts.setdefault(dtypes.pop(), GradientLayout()).add(place, terms)
            else:
                self._others.append(place)
        inside = _places(layouts, (types[place] for place in self._others), expressions, shapes)
        self._each = [
            _OfDtype(kernels.of(dtype), layout, types, forward, backward, inside[dtype])
            for dtype, layout in layouts.items()
        ]

    def compute(self, rows: PassRows) -> dict[str, Sums]:
        """The gradients of all expressions of weights; a compiled kernel has made the backward graph."""
        sums = with_numpy([rows.groups[place] for place in self._others]) if self._others else {}
        for one in self._each:
            one.compute(rows, sums)
        return sums


def _places(
    layouts: Mapping[str, GradientLayout],
    others: Iterable[TypeTerms],
    expressions: Mapping[str, WeightExpression],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, GradientPlaces]:
    """For each dtype where gradients of parts of weights go: apart, if anything else computes some of them."""
    by_numpy = {term.expression for types in others for term in types.terms}
    found = {}
    for dtype, layout in layouts.items():
        products, sums, more = layout.expressions()
        elsewhere = [one.expressions() for name, one in layouts.items() if name != dtype]
        apart = more | by_numpy | {name for sets in elsewhere for names in sets for name in names}
        apart |= {name for name in sums if len(expressions[name].part) > 1}  # one long row
        every = {name: expressions[name] for name in products | sums | apart}
        found[dtype] = gradient_places(every, shapes, apart)
    return found


class _OfDtype:
    def __init__(
        self,
        kernel: GradientKernel,
        layout: GradientLayout,
        types: Sequence[TypeTerms],
        forward: Signature,
        backward: Signature,
        inside: GradientPlaces,
    ) -> None:
        self._layout = layout
        self._types = types
        self._sums = _Products(kernel, layout, inside)
        self._kernel = kernel
        self._dtype = np.dtype(kernel.dtype)
        every = [column for product in layout.products for column in product.rows]
        every += [column for table in layout.tables for column in table.rows]
        self._ends = np.array(list(accumulate((len(one) for one in every), initial=0)))
        rows = [one for column in every for one in column]
        self._rows = TermRows(rows, types, forward, backward, self._dtype.itemsize)
        self._planned = PlannedSums(
            layout, types, self._rows, self._ends, *self._sums.steps(), self._sums.vectors, self._dtype
        )

    def compute(self, rows: PassRows, sums: dict[str, Sums]) -> None:
        gradients = self._sums.gradients()
        fill = self._planned.fill if isinstance(rows.arrays, BackwardSteps) else self._fill
        tables, found_tables, _memory = fill(rows, gradients)
        self._kernel.run(tables)
        for name, gradient in gradients:
            sums.setdefault(name, Sums()).add(gradient)
        for place, term in self._layout.others:
            sums.setdefault(term.expression, Sums()).add(sum_of_rows(rows.groups[place], term.right))
        for name, index, out in found_tables:
            sums.setdefault(name, Sums()).add_rows(index, out)

    def _fill(
        self, rows: PassRows, gradients: Sequence[tuple[str, np.ndarray]]
    ) -> tuple[GradientTables, list[tuple[str, np.ndarray, np.ndarray]], list[np.ndarray]]:
        """The same as :meth:`PlannedSums.fill`, for other backward passes."""
        addresses, starts, memory = self._rows.addresses(rows)
        starts = starts[self._ends]
        steps, vectors, room, multiplies = self._sums.tables(starts, gradients)
        segments: list[np.ndarray] = []
        tables: list[tuple[int, int, int, int, int]] = []
        found_tables = []
        column = self._sums.columns
        for table in self._layout.tables:
            own = starts[column : column + len(table.rows) + 1]
            column += len(table.rows)
            index, out = self._sum_table(table, rows, addresses, own, segments, tables)
            found_tables.append((table.expression, index, out))
        made = GradientTables(
            addresses if len(addresses) else _NONE,
            steps,
            vectors,
            np.concatenate(segments) if segments else _NONE,
            np.array(tables or [(0,) * 5], np.int64),
            room,
            multiplies,
        )
        return made, found_tables, memory

    def _sum_table(
        self,
        table: Table,
        rows: PassRows,
        addresses: np.ndarray,
        starts: np.ndarray,
        segments: list[np.ndarray],
        tables: list[tuple[int, int, int, int, int]],
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows of a table that have a gradient, and these, once the kernel has computed what is added to `tables`.

        The addresses of the rows to be added are brought into the order of the rows of the table.
        """
        parts = [_read_rows(rows, self._types[place], source.number) for place, source in table.reads]
        index = np.concatenate(parts)
        order = rising_order(index)
        index = index[order]
        distinct = distinct_starts(index)
        out = np.empty((len(distinct), sum(table.widths)), self._dtype)
        ends, before = np.append(distinct, len(index)), sum(map(len, segments))
        for begin, end, width, column in zip(
            starts[:-1].tolist(), starts[1:].tolist(), table.widths, accumulate(table.widths, initial=0), strict=False
        ):
            addresses[begin:end] = addresses[begin:end][order]
            address = int(out.__array_interface__["data"][0]) + column * self._dtype.itemsize
            tables.append((len(distinct), before, width, address, out.strides[0]))
            segments.append(begin + ends)
            before += len(ends)
        return index[distinct], out


class _Products:
    """The kernel's tables of the products of a layout.

    Attributes
    ----------
    columns : int
        How many columns their sides have, each with rows of its own.
    vectors : VectorTable
        What the sides are cut into.
    """

    def __init__(self, kernel: GradientKernel, layout: GradientLayout, inside: GradientPlaces) -> None:
        self._tiles = kernel.tiles
        self._dtype = np.dtype(kernel.dtype)
        self._incomplete = inside.incomplete
        self.vectors: VectorTable = vector_table(layout, kernel.tiles, self._dtype.itemsize, inside)
        *self._first_columns, self.columns = accumulate((len(one.rows) for one in layout.products), initial=0)

    def gradients(self) -> list[tuple[str, np.ndarray]]:
        """Memory for the results, with the expressions that they are the gradients of."""
        return [
            (name, (np.zeros if name in self._incomplete else np.empty)(size, self._dtype))
            for name, size in self.vectors.gradients[1:]
        ]

    def tables(
        self, starts: np.ndarray, gradients: Sequence[tuple[str, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray, int, int]:
        """The tables of steps and of vectors, the room that the steps need, and the multiplications.

        Parameters
        ----------
        starts : int64 array
            Where the rows of each column begin, and the last of them end.
        gradients : sequence of (str, array)
            What :meth:`gradients` gave.
        """
        found: list[int] = []
        multiplies = 0
        every, room = self.steps()
        for one in every:
            nodes = int(starts[one.column + 1] - starts[one.column])
            found += (nodes, *one[1:-1])
            multiplies += nodes * one.multiplies
        steps = np.array(found or [0] * 5, np.int64).reshape(-1, 5)
        vectors = self.vectors.at(starts, [_NONE, *(one for _, one in gradients)]) if found else self.vectors.vectors
        return steps, vectors, room, multiplies

    def steps(self) -> tuple[list[Step], int]:
        """The steps of the kernel, and the room that they need."""
        tiles = self._tiles
        found, room = [], 1
        for column, (first, lefts, rights) in zip(self._first_columns, self.vectors.sides, strict=True):
            turn = max(tiles.vectors, _MOST_SUMS // max(1, lefts * tiles.lanes**2))
            for begin in range(0, rights, turn):
                some = min(turn, rights - begin)
                found.append(Step(column, first, lefts, first + lefts + begin, some, lefts * some * tiles.lanes**2))
                room = max(room, tiles.room(lefts, some))
        return found, room


def _read_rows(rows: PassRows, terms: TypeTerms, number: int) -> np.ndarray:
    """The rows of a table that the nodes of a type read, in their order."""
    arrays = rows.arrays
    assert arrays is not None
    nodes = arrays.node_order[arrays.group_ptr[terms.type_id] : arrays.group_ptr[terms.type_id + 1]]
    attribute = rows.forward.graph.attributes[terms.type_id, terms.cell.attributes[number].name]
    index: np.ndarray = attribute[arrays.node_rank[nodes]].astype(np.int64).ravel()
    return index


def product_tables(
    kernel: GradientKernel, left: np.ndarray, left_rows: np.ndarray, right: np.ndarray, right_rows: np.ndarray
) -> tuple[GradientTables, np.ndarray]:
    """The kernel's tables of one product of rows of matrices, and the array that it writes; to measure it alone."""
    layout = GradientLayout()
    layout.add_product([Columns(left.shape[1])], [Columns(right.shape[1], 0, right.shape[1], "product")], [])
    product = np.empty((left.shape[1], right.shape[1]), left.dtype)
    nodes = len(left_rows)
    sides = ((left, left_rows), (right, right_rows))
    rows = [numbers * side.strides[0] + side.__array_interface__["data"][0] for side, numbers in sides]
    starts = np.array([0, nodes, 2 * nodes])
    steps, vectors, room, multiplies = _Products(kernel, layout, GradientPlaces()).tables(
        starts, [("product", product)]
    )
    none = np.zeros((1, 5), np.int64)
    return GradientTables(np.concatenate(rows), steps, vectors, none[0], none, room, multiplies), product
