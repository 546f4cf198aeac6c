"""What the kernel of backward graphs and its callers agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

TYPE, PER_ROW, FIRST_READ, LAST_READ, SIMPLE = range(5)
"""Columns of ``sections[type, section]``: the type in the backward graph, -1 if there is no such section; whether it
runs for each variadic row; where its rows of ``reads`` begin and end; whether it runs once for each node and reads no
variadic rows."""

PART, NUMBER = range(2)
"""Columns of ``slots[type, operand]``: the section and the output that is the operand's gradient, -1 if it has none.
Of a cotangent among ``reads``, the part is 1 for the second one of an output."""

KIND, EVERY_ROW, READ_ARENA = 2, 3, 4
"""Further columns of ``reads``, which has the first two of ``slots`` as well: what is read, of the kinds below; whether
all variadic rows of the node are; of an operand or an output of the forward node, its arena in the backward graph."""

OPERAND, VALUE, COTANGENT, OUTPUT, ATTRIBUTE = range(5)
"""Kinds of reads: an operand of the forward node, one of its outputs, the cotangent of one, an output of a section. An
attribute of the node is read by terms of weights alone."""

SUM_TYPE, RANK, BACKWARD_ARENA, ROWS = range(4)
"""Columns of ``arenas``, those of the forward graph: the type that adds cotangents there, its place among these types,
the arena of the same rows in the backward graph (both -1 if there is none), and the rows of the forward plan but for
the first, of zeros, which is no external row."""

PER_NODE, OF_EACH_ROW, PER_SQUARE = range(3)
"""What the second axis of ``TypeTables.bounds`` counts."""

OF_TYPE, OF_KIND, OF_NUMBER, OF_PART, OF_ROWS, EACH, STEP, BASE, PITCH, TERM_COLUMNS = range(10)
"""Columns of ``terms``, int64: rows of the nodes of a forward type, of a kind above, with its number and, of an output,
its section; whether there is one for each variadic row; how many vectors a row consists of, and bytes from one to the
next; the address of row 0 and bytes from row to row. The number of columns."""

PLACES, BATCHES, EXTERNAL_USES = range(3)
"""Slots of the results ``io``: nodes and batches of the backward graph, gradients of external rows of the forward
graph."""

NEW_BATCHES, NEW_USES, NEW_IO_SLOTS = 8, 9, 10
"""Slots of the results of ``backward_steps``, after those of ``fill``: batches, and gradients of external rows of the
forward graph. The number of slots."""

PRODUCT_COLUMN, PRODUCT_MULTIPLIES, PRODUCT_SLOTS = 0, 5, 6
"""Of ``SumTables.products``, beside the columns of the steps of :mod:`schedules.cpu.weight_gradients`: in place of
the number of nodes the columns that have as many rows; the multiplications for each node. The number of columns."""

VECTOR_COLUMN, VECTOR_OUT, VECTOR_TOTAL, VECTOR_SLOTS = 8, 9, 10, 11
"""Of ``SumTables.vectors``, behind the columns of the vectors there: the columns that a vector is of, and the
gradients that it adds to. The number of columns."""

TABLE_COLUMN, TABLE_COLUMNS, TABLE_READ, TABLE_READS, TABLE_SLOTS = range(5)
"""Of ``SumTables.tables``: the first of the columns that are added to a table, and how many there are; the first
of its reads, and how many. The number of columns."""

READ_TYPE, READ_MEMORY, READ_BYTES, READ_EACH, READ_SLOTS = range(5)
"""Of ``SumTables.reads``: the type whose nodes read rows of a table, the memory that says which, the bytes of an
integer, and how many rows each node reads. The number of columns."""


class SumTables(NamedTuple):
    """What is computed of weight gradients in one dtype, for nodes of given types.

    Attributes
    ----------
    terms : int64 array of shape [k, TERM_COLUMNS]
        Rows that are read; BASE is a number of memory.
    ends : int64 array
        Of each columns of a product or table, the first of these rows, and one more the end.
    products, vectors, tables, reads : int64 array
    """

    terms: np.ndarray
    ends: np.ndarray
    products: np.ndarray
    vectors: np.ndarray
    tables: np.ndarray
    reads: np.ndarray


class TypeTables(NamedTuple):
    """The adjoints of all types.

    Attributes
    ----------
    sections, slots, reads, arenas : int32 array
    cotangents : int32 array of shape [types, outputs]
        How many cotangents of an output its adjoint reads; more than that are added before. 0 if there is no such
        output, or none that may have a cotangent.
    bounds : int64 array of shape [types, 3, 2]
        How many nodes of sections and operands of these there are at most, for each node of a type, for each variadic
        row, and for each pair of rows of one node: see PER_NODE and the following.
    specs : int
        The arenas of the backward graph.
    """

    sections: np.ndarray
    slots: np.ndarray
    reads: np.ndarray
    arenas: np.ndarray
    cotangents: np.ndarray
    bounds: np.ndarray
    specs: int


class BackwardArrays(NamedTuple):
    """A backward graph as arrays.

    Attributes
    ----------
    node_type, operand_ptr, operand_value, external_spec, external_row
        Of the graph.
    batch_ptr : int32 array
        Of its schedule, which has the nodes in order.
    cotangent : int32 array of shape [forward nodes, outputs, 2]
        What the cotangent of each output is: a value, an external row, zero. Where an adjoint adds two, both.
    place_of : int32 array of shape [forward nodes, sections]
        The first node that a section of the adjoint of a forward node is; one follows for each further row.
    node_rank : int32 array
        For each forward node how many of its type come before it.
    node_order : int32 array
        The forward nodes that have cotangents, type by type; of a type, those of the last batch first.
    group_ptr : int32 array of shape [types + 1]
        Where those of each type begin.
    group_rows : int32 array of shape [types]
        How many variadic rows they have.
    external_use, external_of : int32 array
        Values that are gradients of external rows of the forward graph, and the rows.
    """

    node_type: np.ndarray
    operand_ptr: np.ndarray
    operand_value: np.ndarray
    external_spec: np.ndarray
    external_row: np.ndarray
    batch_ptr: np.ndarray
    cotangent: np.ndarray
    place_of: np.ndarray
    node_rank: np.ndarray
    node_order: np.ndarray
    group_ptr: np.ndarray
    group_rows: np.ndarray
    external_use: np.ndarray
    external_of: np.ndarray


@dataclass(frozen=True, eq=False)
class BackwardSteps:
    """A backward pass as the tables that kernels read, and where its rows lie.

    Attributes
    ----------
    steps, index : int32 array
        See :mod:`edbatch_tvm.memory.steps_table`.
    arena_rows : int32 array
        Rows that each arena needs.
    type_count : int64 array
        Nodes of each type of the backward pass.
    cotangent_row : int32 array of shape [forward nodes * outputs * 2]
        The row of the cotangent of each output; where an adjoint adds two, of both. 0 for none.
    node_order, group_ptr, group_rows, node_rank : int32 array
        See :class:`BackwardArrays`.
    batch_at : int32 array of shape [forward batches * (forward arenas + sections)]
        From the last forward batch on, the batch that adds cotangents of an arena, by rank, and that of each section;
        -1 if there is none.
    external_use, external_of : int32 array
        Rows of gradients of external rows of the forward graph, and these rows.
    counts : list of int
        The results of ``fill``.
    """

    steps: np.ndarray
    index: np.ndarray
    arena_rows: np.ndarray
    type_count: np.ndarray
    cotangent_row: np.ndarray
    node_order: np.ndarray
    group_ptr: np.ndarray
    group_rows: np.ndarray
    node_rank: np.ndarray
    batch_at: np.ndarray
    external_use: np.ndarray
    external_of: np.ndarray
    counts: list[int]


@dataclass(frozen=True, eq=False)
class FoundSums:
    """The tables of weight gradients of a minibatch.

    Attributes
    ----------
    starts, addresses : int64 array
        Where the addresses of the rows of each columns begin, and these.
    steps, vectors, segments : int64 array
        See :mod:`schedules.cpu.weight_gradients`.
    index : int64 array
        Of each table the rows that have a gradient, rising.
    distinct : list of int
        How many these are.
    multiplies : int
        Of all products together.
    """

    starts: np.ndarray
    addresses: np.ndarray
    steps: np.ndarray
    vectors: np.ndarray
    segments: np.ndarray
    index: np.ndarray
    distinct: list[int]
    multiplies: int
