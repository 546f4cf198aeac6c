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
from relay_ext.gradients.adjoint_cells import Source, WeightTerm

DTYPES = ("float32", "float64")
"""The dtypes that there are kernels for."""


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
