"""What the kernel of backward graphs and its callers agree on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

TYPE, PER_ROW, FIRST_READ, LAST_READ = range(4)
"""Columns of ``sections[type, section]``: the type in the backward graph, -1 if there is no such section; whether it
runs for each variadic row; where its rows of ``reads`` begin and end."""

PART, NUMBER = range(2)
"""Columns of ``slots[type, operand]``: the section and the output that is the operand's gradient, -1 if it has none."""

KIND, EVERY_ROW = 2, 3
"""Further columns of ``reads``, which has the first two of ``slots`` as well: what is read, of the kinds below, and
whether all variadic rows of the node are."""

OPERAND, VALUE, COTANGENT, OUTPUT = range(4)
"""Kinds of reads: an operand of the forward node, one of its outputs, the cotangent of one, an output of a section."""

SUM_TYPE, RANK, BACKWARD_ARENA, ROWS = range(4)
"""Columns of ``arenas``, those of the forward graph: the type that adds cotangents there, its place among these types,
the arena of the same rows in the backward graph (both -1 if there is none), and the rows of the forward plan."""

PLACES, BATCHES, NODES, EXTERNALS, EXTERNAL_USES = range(5)
"""Slots of the results ``io``: nodes and batches of the backward graph, forward nodes that have cotangents, external
rows, gradients of external rows of the forward graph."""


class TypeTables(NamedTuple):
    """The adjoints of all types.

    Attributes
    ----------
    sections, slots, reads, arenas : int32 array
    """

    sections: np.ndarray
    slots: np.ndarray
    reads: np.ndarray
    arenas: np.ndarray


class BackwardArrays(NamedTuple):
    """A backward graph as arrays.

    Attributes
    ----------
    node_type, operand_ptr, operand_value, external_spec, external_row
        Of the graph.
    batch_ptr : int32 array
        Of its schedule, which has the nodes in order.
    cotangent : int32 array
        For each value of the forward graph what its cotangent is: a value, an external row, zero.
    place_of : int32 array of shape [forward nodes, sections]
        The first node that a section of the adjoint of a forward node is; one follows for each further row.
    node_rank : int32 array
        For each forward node how many of its type come before it.
    node_order : int32 array
        The forward nodes that have cotangents: those of the last batch first.
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
    external_use: np.ndarray
    external_of: np.ndarray
