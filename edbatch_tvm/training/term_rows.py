"""The addresses of the rows that compiled sums read: the cells decide which, the minibatch where they lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edbatch_tvm.find_native import find_native
from edbatch_tvm.graph import Signature
from edbatch_tvm.native.backward_tables import (
    ATTRIBUTE,
    BASE,
    COTANGENT,
    EACH,
    OF_KIND,
    OF_NUMBER,
    OF_PART,
    OF_ROWS,
    OF_TYPE,
    OPERAND,
    OUTPUT,
    PITCH,
    STEP,
    TERM_COLUMNS,
    VALUE,
    BackwardArrays,
)
from edbatch_tvm.training.gradient_layout import Rows, TypeTerms
from edbatch_tvm.training.row_sources import PassRows, padded_rows

_KINDS = {"operand": OPERAND, "value": VALUE, "cotangent": COTANGENT, "output": OUTPUT, "attribute": ATTRIBUTE}

_FORWARD, _BACKWARD, _ATTRIBUTE = range(3)
"""What memory is: an arena of one of the passes, or an attribute of a type."""

Memory = tuple[int, int, str]
"""What it is, the number of the arena or type, and the name of the attribute."""


class TermRows:
    """Rows of the nodes that have cotangents.

    Parameters
    ----------
    rows : sequence of Rows
    types : sequence of TypeTerms
        Those that the places in `rows` stand for.
    forward, backward : Signature
    itemsize : int
        Bytes of an element.

    Attributes
    ----------
    table : int64 array of shape [rows, TERM_COLUMNS]
        The kernel's table, without the places of memory.
    memories : dict of tuple to int
        What is read, with its number.
    memory_of : int64 array
        The number of each rows.
    """

    def __init__(
        self, rows: Sequence[Rows], types: Sequence[TypeTerms], forward: Signature, backward: Signature, itemsize: int
    ) -> None:
        self.table = np.zeros((len(rows), TERM_COLUMNS), np.int64)
        self.memories: dict[Memory, int] = {}
        self.memory_of = np.empty(len(rows), np.int64)
        for number, (one, own) in enumerate(zip(rows, self.table, strict=True)):
            terms, source = types[one.place], one.source
            own[OF_TYPE], own[OF_KIND], own[OF_NUMBER] = terms.type_id, _KINDS[source.kind], source.number
            own[OF_PART], own[EACH], own[STEP] = source.part, one.each, one.width * itemsize
            if source.kind == "attribute":
                memory = _ATTRIBUTE, terms.type_id, terms.cell.attributes[source.number].name
            elif source.kind == "operand":
                operand = terms.cell.operands[source.number]
                own[OF_ROWS] = operand.variadic
                memory = _FORWARD, forward.arena(operand.spec), ""
            elif source.kind == "output":
                own[OF_ROWS] = terms.per_row[source.part]
                memory = _BACKWARD, backward.arena(terms.sections[source.part].outputs[source.number]), ""
            else:
                of_signature = forward if source.kind == "value" else backward
                side = _FORWARD if source.kind == "value" else _BACKWARD
                memory = side, of_signature.arena(terms.cell.outputs[source.number]), ""
            self.memory_of[number] = self.memories.setdefault(memory, len(self.memories))

    def addresses(self, rows: PassRows) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """The addresses of the rows of a minibatch.

        Returns
        -------
        addresses : int64 array
            Those of all nodes for the first rows, then for the next, ...
        starts : int64 array
            Where those of each begin, and how many there are.
        memory : list of array
            What has to live as long as the addresses are used.
        """
        forward, backward, arrays = rows.forward, rows.backward, rows.arrays
        assert isinstance(arrays, BackwardArrays)
        memory = self.memory(rows)
        terms, types = self.table.copy(), self.table[:, OF_TYPE]
        if memory:
            terms[:, BASE] = np.array([one.__array_interface__["data"][0] for one in memory])[self.memory_of]
            terms[:, PITCH] = np.array([one.strides[0] for one in memory])[self.memory_of]
        counts = np.where(terms[:, OF_ROWS], arrays.group_rows[types], np.diff(arrays.group_ptr)[types])
        starts = np.zeros(len(terms) + 1, np.int64)
        np.cumsum(counts * terms[:, EACH], out=starts[1:])
        native = find_native("build backward graphs")
        made = native.addresses(forward.graph, forward.plan, arrays, backward.plan, terms, starts)
        return made, starts, memory

    def memory(self, rows: PassRows) -> list[np.ndarray]:
        """What the rows of a minibatch lie in."""
        forward, backward = rows.forward, rows.backward
        return [
            padded_rows(forward.graph.attributes[number, name])
            if kind == _ATTRIBUTE
            else (forward if kind == _FORWARD else backward).arena(number)
            for kind, number, name in self.memories
        ]
