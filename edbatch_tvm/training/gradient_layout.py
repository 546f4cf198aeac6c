"""What the compiled kernel of weight gradients computes for nodes of given types, and where results go.

This depends on the cells alone, so it is worked out once for each set of types that occurs together;
:mod:`edbatch_tvm.training.compiled_sums` fills in where the rows of a minibatch lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from edbatch_tvm.graph.spec import CellSignature
from edbatch_tvm.training.gradient_places import GradientPlaces, InWeight
from relay_ext.gradients.adjoint_cells import Source, WeightTerm
from schedules.cpu.weight_gradients import ADD, ADDRESSES, OFFSET, OUT, STRIDE, TOTAL, TOTAL_ADD, WIDTH, Tiles

DTYPES = ("float32", "float64")
"""The dtypes that there are kernels for."""

_OF_THEIR_OWN = GradientPlaces()


class TypeTerms(NamedTuple):
    """The cells of nodes of one type.

    Attributes
    ----------
    type_id : int
        In the forward signature.
    cell : CellSignature
        The forward cell.
    terms : tuple of WeightTerm
    sections : list of CellSignature
        Those of its adjoint.
    per_row : list of bool
        Whether each of them runs for each variadic row of a node.
    """

    type_id: int
    cell: CellSignature
    terms: tuple[WeightTerm, ...]
    sections: list[CellSignature]
    per_row: list[bool]


class Rows(NamedTuple):
    """Rows of the nodes of one type.

    Attributes
    ----------
    place : int
        The place of the type.
    source : Source
        It is not made of others.
    each : int
        How many vectors a row consists of.
    width : int
        Elements of each of these.
    """

    place: int
    source: Source
    each: int
    width: int


class Columns(NamedTuple):
    """Columns of one side of a product.

    Attributes
    ----------
    width : int
    begin, whole : int
        The first of them in the gradient, and how many columns that has.
    expression, total : str or None
        What they are columns of the gradient of, and what the sum of their rows is the gradient of.
    """

    width: int
    begin: int = 0
    whole: int = 0
    expression: str | None = None
    total: str | None = None


class Product(NamedTuple):
    """A product, of all nodes that contribute to it.

    Attributes
    ----------
    left, right : tuple of Columns
    rows : list of list of Rows
        For each columns of both sides: what their rows are, one behind the other.
    """

    left: tuple[Columns, ...]
    right: tuple[Columns, ...]
    rows: list[list[Rows]]


class Table(NamedTuple):
    """Rows that are added to those of a table.

    Attributes
    ----------
    expression : str
    reads : list of (int, Source)
        The type and its attribute that has the rows of the table.
    widths : tuple of int
    rows : list of list of Rows
        For each width what lies there in a row of the gradient.
    """

    expression: str
    reads: list[tuple[int, Source]]
    widths: tuple[int, ...]
    rows: list[list[Rows]]


class GradientLayout:
    """What is computed in one dtype.

    Attributes
    ----------
    products : list of Product
    tables : list of Table
    others : list of (int, WeightTerm)
        Sums of an unusual form, by the place of the type: NumPy computes them.
    """

    def __init__(self) -> None:
        self.products: list[Product] = []
        self.tables: list[Table] = []
        self.others: list[tuple[int, WeightTerm]] = []

    def add(self, place: int, terms: TypeTerms) -> None:
        """Add what the nodes of a type contribute."""
        _Type(self, place, terms).add()

    def add_product(self, left: Sequence[Columns], right: Sequence[Columns], rows: Sequence[Rows]) -> None:
        """Add a product: to one that differs in its nodes alone, if there is one."""
        for known in self.products:
            if known.left == tuple(left) and known.right == tuple(right):
                break
        else:
            known = Product(tuple(left), tuple(right), [[] for _ in rows])
            self.products.append(known)
        for column, one in zip(known.rows, rows, strict=True):
            column.append(one)

    def expressions(self) -> tuple[set[str], set[str], set[str]]:
        """What products are gradients of, what sums of rows are, and what else is computed."""
        columns = [column for product in self.products for column in product.right]
        products = {column.expression for column in columns if column.expression is not None}
        sums = {column.total for column in columns if column.total is not None}
        return (
            products,
            sums,
            {table.expression for table in self.tables} | {term.expression for _, term in self.others},
        )

    def add_table(self, expression: str, reads: tuple[int, Source], rows: Sequence[Rows]) -> None:
        """Add rows of a table."""
        widths = tuple(one.width for one in rows)
        for known in self.tables:
            if known.expression == expression and known.widths == widths:
                break
        else:
            known = Table(expression, [], widths, [[] for _ in rows])
            self.tables.append(known)
        known.reads.append(reads)
        for column, one in zip(known.rows, rows, strict=True):
            column.append(one)


def dtypes_of(terms: TypeTerms) -> set[str]:
    """The dtypes of all rows that a type contributes."""
    found = set()
    for term in terms.terms:
        sources = [term.right] if term.kind == "table" or term.left is None else [term.left, term.right]
        for source in sources:
            found |= {_spec(terms, leaf)[1] for leaf in _leaves(source)}
    return found


def _leaves(source: Source) -> Iterator[Source]:
    if not source.parts:
        yield source
    for part in source.parts:
        yield from _leaves(part)


def _spec(terms: TypeTerms, source: Source) -> tuple[tuple[int, ...], str]:
    """The shape of a row of a source that is not made of others, and its dtype."""
    if source.kind == "attribute":
        spec = terms.cell.attributes[source.number].spec
    elif source.kind == "operand":
        spec = terms.cell.operands[source.number].spec
    elif source.kind == "output":
        spec = terms.sections[source.part].outputs[source.number]
    else:
        spec = terms.cell.outputs[source.number]
    return tuple(spec.shape), spec.dtype


class _Type:
    """The terms of one type on their way into a layout."""

    def __init__(self, layout: GradientLayout, place: int, terms: TypeTerms) -> None:
        self.layout = layout
        self.place = place
        self.terms = terms

    def add(self) -> None:
        products: dict[Source, list[WeightTerm]] = {}
        sums: list[WeightTerm] = []
        for term in self.terms.terms:
            if term.kind == "product":
                assert term.left is not None
                products.setdefault(term.left, []).append(term)
            elif term.kind == "sum":
                sums.append(term)
            else:
                self._add_table(term)
        for left, terms in products.items():
            for some in _apart(terms):
                self._add_product(left, some, sums)
        for term in sums:
            self._add_sum(term)

    def _add_product(self, left: Source, terms: Sequence[WeightTerm], sums: list[WeightTerm]) -> None:
        """Products with the same left rows; the sums of their right rows come with them, and leave `sums`."""
        rows = self._rows(left)
        lefts = [Columns(one.width) for one in rows]
        used = {term.expression for term in terms}
        rights: list[Columns] = []
        for term in terms:
            parts = self._rows(term.right)
            total = None
            for number, one in enumerate(sums):
                if one.right == term.right and one.expression not in used and self._is_vector(term.right):
                    total = sums.pop(number).expression
                    used.add(total)
                    break
            rights += _columns(parts, term.expression, total)
            rows += parts
        self.layout.add_product(lefts, rights, rows)

    def _add_sum(self, term: WeightTerm) -> None:
        """A sum of rows alone: a product without a left side."""
        sources = list(_leaves(term.right))
        if term.right.parts and not all(map(self._is_vector, sources)):
            self.layout.others.append((self.place, term))
            return
        rows = [Rows(self.place, source, 1, int(np.prod(_spec(self.terms, source)[0]))) for source in sources]
        self.layout.add_product((), _columns(rows, None, term.expression), rows)

    def _add_table(self, term: WeightTerm) -> None:
        assert term.left is not None
        # A node that reads several rows of the table has a row for each of them.
        per_node = int(np.prod(_spec(self.terms, term.left)[0]))
        parts = self._rows(term.right)
        rows = [one._replace(each=per_node, width=one.each * one.width // per_node) for one in parts]
        self.layout.add_table(term.expression, (self.place, term.left), rows)

    def _rows(self, source: Source) -> list[Rows]:
        """The parts whose vectors lie side by side in the rows of a source."""
        found = []
        for leaf in _leaves(source):
            shape, _ = _spec(self.terms, leaf)
            found.append(Rows(self.place, leaf, int(np.prod(shape[:-1])), shape[-1] if shape else 1))
        return found

    def _is_vector(self, source: Source) -> bool:
        """Whether a row of a source is one vector."""
        return not source.parts and len(_spec(self.terms, source)[0]) == 1


def _columns(rows: Sequence[Rows], expression: str | None, total: str | None) -> list[Columns]:
    """The columns of a gradient that lie side by side."""
    *begins, whole = accumulate((one.width for one in rows), initial=0)
    return [Columns(one.width, begin, whole, expression, total) for one, begin in zip(rows, begins, strict=True)]


def _apart(terms: Sequence[WeightTerm]) -> Iterator[list[WeightTerm]]:
    """Terms in groups in which every gradient occurs once: threads write to all gradients of a product at once."""
    left = list(terms)
    while left:
        some: dict[str, WeightTerm] = {}
        for term in left:
            some.setdefault(term.expression, term)
        yield list(some.values())
        left = [term for term in left if some[term.expression] is not term]


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
