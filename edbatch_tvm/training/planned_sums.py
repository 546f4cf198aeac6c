"""The tables of weight gradients for planned backward passes: a compiled kernel fills them in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from edbatch_tvm.find_native import find_native
from edbatch_tvm.native.backward_tables import (
    BASE,
    EACH,
    OF_ROWS,
    OF_TYPE,
    PRODUCT_SLOTS,
    READ_SLOTS,
    TABLE_SLOTS,
    BackwardSteps,
    SumTables,
)
from edbatch_tvm.training.gradient_kernel import GradientTables
from edbatch_tvm.training.gradient_layout import GradientLayout, TypeTerms
from edbatch_tvm.training.row_sources import PassRows
from edbatch_tvm.training.term_rows import TermRows
from edbatch_tvm.training.vector_table import VectorTable


class Step(NamedTuple):
    """A step of the kernel of weight gradients, for any number of nodes.

    Attributes
    ----------
    column : int
        The columns that have as many rows as there are nodes.
    first, lefts, right, rights : int
        The first of the vectors of each side, and their numbers.
    multiplies : int
        For each node.
    """

    column: int
    first: int
    lefts: int
    right: int
    rights: int
    multiplies: int


class PlannedSums:
    """Fills in the kernel's tables for nodes of given types.

    Parameters
    ----------
    layout : GradientLayout
    types : sequence of TypeTerms
        In the order of the groups of nodes.
    rows : TermRows
        What its products and tables read.
    ends : sequence of int
        Where the rows of each columns begin among these, and one more the end.
    steps : sequence of Step
    room : int
        Elements of the workspace for them.
    vectors : VectorTable
    dtype : dtype
    """

    def __init__(
        self,
        layout: GradientLayout,
        types: Sequence[TypeTerms],
        rows: TermRows,
        ends: np.ndarray,
        steps: Sequence[Step],
        room: int,
        vectors: VectorTable,
        dtype: np.dtype,
    ) -> None:
        self._layout, self._rows, self._room, self._dtype = layout, rows, room, dtype
        terms = rows.table.copy()
        terms[:, BASE] = rows.memory_of
        self._read: list[tuple[int, str]] = []  # attributes that say which rows of tables are read
        known: dict[tuple[int, str], int] = {}
        tables: list[tuple[int, ...]] = []
        reads: list[tuple[int, ...]] = []
        column = sum(len(product.rows) for product in layout.products)
        # Of types: addresses for each node and for each variadic row; segments and rows of tables for each node.
        self._addresses: dict[int, list[int]] = {}
        for type_id, each, of_rows in terms[:, [OF_TYPE, EACH, OF_ROWS]].tolist():
            self._addresses.setdefault(type_id, [0, 0])[of_rows] += each
        self._segments: list[list[tuple[int, int]]] = []
        for table in layout.tables:
            tables.append((column, len(table.rows), len(reads), len(table.reads)))
            column += len(table.rows)
            own = []
            for place, source in table.reads:
                attribute = types[place].cell.attributes[source.number]
                key = types[place].type_id, attribute.name
                number = known.setdefault(key, len(rows.memories) + len(known))
                each = int(np.prod(attribute.spec.shape))
                reads.append((types[place].type_id, number, 4 if attribute.spec.dtype == "int32" else 8, each))
                own.append((types[place].type_id, each))
            self._segments.append(own)
        self._read = list(known)
        self.tables = SumTables(
            terms if len(terms) else np.zeros((1, terms.shape[1]), np.int64),
            ends,
            _rows(steps, PRODUCT_SLOTS),
            np.column_stack((vectors.vectors, vectors.columns, vectors.outputs, vectors.totals)),
            _rows(tables, TABLE_SLOTS),
            _rows(reads, READ_SLOTS),
        )

    def fill(
        self, rows: PassRows, gradients: Sequence[tuple[str, np.ndarray]]
    ) -> tuple[GradientTables, list[tuple[str, np.ndarray, np.ndarray]], list[np.ndarray]]:
        """The tables of a minibatch.

        Returns
        -------
        GradientTables
        list of (str, array, array)
            For each table its expression, the rows that have a gradient, and memory for these.
        memory : list of array
            What has to live while the kernel runs.
        """
        steps, graph = rows.arrays, rows.forward.graph
        assert isinstance(steps, BackwardSteps)
        memory = [*self._rows.memory(rows), *(_integers(graph.attributes[key]) for key in self._read)]
        places = [(one.__array_interface__["data"][0], one.strides[0]) for one in memory]
        ends, of_rows = steps.group_ptr.tolist(), steps.group_rows.tolist()
        nodes = [end - begin for begin, end in pairwise(ends)]
        room = sum(
            per_node * nodes[type_id] + per_row * of_rows[type_id]
            for type_id, (per_node, per_row) in self._addresses.items()
        )
        counts = [sum(each * nodes[type_id] for type_id, each in own) for own in self._segments]
        native = find_native("plan backward passes")
        found = native.sums(
            graph,
            rows.forward.plan,
            steps,
            self.tables,
            np.array(places or [(0, 0)], np.int64),
            np.array([0, *(one.__array_interface__["data"][0] for _, one in gradients)], np.int64),
            room,
            sum((count + 1) * len(table.rows) for count, table in zip(counts, self._layout.tables, strict=True)),
            counts,
        )
        sums, tables, before, first = [], [], 0, 0
        for table, distinct in zip(self._layout.tables, found.distinct, strict=True):
            width = sum(table.widths)
            out = np.empty((distinct, width), self._dtype)
            address = int(out.__array_interface__["data"][0])
            for own, column in zip(table.widths, accumulate(table.widths, initial=0), strict=False):
                tables.append((distinct, before, own, address + column * self._dtype.itemsize, out.strides[0]))
                before += distinct + 1
            sums.append((table.expression, found.index[first : first + distinct].copy(), out))
            first += distinct
        made = GradientTables(
            found.addresses,
            found.steps,
            found.vectors,
            found.segments,
            np.array(tables or [(0,) * 5], np.int64),
            self._room,
            found.multiplies,
        )
        return made, sums, memory


def _integers(rows: np.ndarray) -> np.ndarray:
    """Rows of a table as the kernel reads them: int32 where the attribute is, else int64."""
    return np.ascontiguousarray(rows, np.int32 if rows.dtype == np.int32 else np.int64)


def _rows(rows: Sequence[Sequence[int]], width: int) -> np.ndarray:
    """Rows of a table, or one of zeros: TVM refuses the null pointer that an empty array may have."""
    return np.array(rows or [(0,) * width], np.int64).reshape(-1, width)
