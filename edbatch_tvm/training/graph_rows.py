"""Operands, attributes and rows of some nodes of a graph, as arrays."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.graph.instance import FIRST_EXTERNAL, InstanceGraph
from edbatch_tvm.memory.plan import Plan


class OperandEntries:
    """Where the operands of nodes of one type are in the list of all operands of a graph."""

    def __init__(self, graph: InstanceGraph, type_id: int, nodes: np.ndarray) -> None:
        assert graph.signature is not None
        cell = graph.signature[type_id]
        self.variadic = [operand.variadic for operand in cell.operands]
        self._begin = graph.operand_ptr[nodes].astype(np.int64)
        length = graph.operand_ptr[nodes + 1] - self._begin
        self.rows: np.ndarray = (length - cell.fixed_arity) // max(cell.variadic_count, 1)

    def begin(self, number: int) -> np.ndarray:
        """The first entry of an operand of each node."""
        many = sum(self.variadic[:number])
        return self._begin + (number - many) + many * self.rows

    def of(self, number: int) -> np.ndarray:
        """The entries of an operand, node after node and row after row."""
        return ranges(self.begin(number), self.rows) if self.variadic[number] else self.begin(number)


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers of the ranges ``[start, start + length)``, one after the other."""
    total = int(lengths.sum())
    before = np.cumsum(lengths) - lengths
    return np.arange(total) + np.repeat(starts - before, lengths)


def attribute_rows(graph: InstanceGraph, types: np.ndarray, type_id: int, name: str, nodes: np.ndarray) -> np.ndarray:
    """An attribute of some nodes of a type."""
    of_type = np.flatnonzero(types == type_id)
    rows: np.ndarray = graph.attributes[type_id, name][np.searchsorted(of_type, nodes)]
    return rows


def arena_rows(graph: InstanceGraph, plan: Plan, values: np.ndarray) -> np.ndarray:
    """The rows of values, external rows and zeros in the arenas of a plan."""
    rows = np.zeros(len(values), np.int64)
    inside, outside = values >= 0, values <= FIRST_EXTERNAL
    rows[inside] = plan.value_row[values[inside]]
    rows[outside] = 1 + graph.external_row[FIRST_EXTERNAL - values[outside]]
    return rows


def arenas_of(graph: InstanceGraph, values: np.ndarray) -> np.ndarray:
    """The arenas that values and external rows lie in."""
    assert graph.signature is not None
    arenas = np.zeros(len(values), np.int64)
    inside, outside = values >= 0, values <= FIRST_EXTERNAL
    own = values[inside]
    arenas[inside] = graph.signature.output_arena[graph.node_type[own // graph.stride], own % graph.stride]
    arenas[outside] = graph.external_spec[FIRST_EXTERNAL - values[outside]]
    return arenas
