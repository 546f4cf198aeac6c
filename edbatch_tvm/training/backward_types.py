"""What a backward graph is made of, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.native.backward_tables import BackwardArrays
from relay_ext.gradients.adjoint_cells import Source
from relay_ext.gradients.sections import Read


@dataclass(frozen=True, eq=False)
class SectionType:
    """What the graph needs to know of a section of an adjoint.

    Attributes
    ----------
    type_id : int
        Its place in the backward signature.
    per_row : bool
        Whether it runs for each variadic row of a node.
    reads : sequence of Read
        Its operands.
    """

    type_id: int
    per_row: bool
    reads: Sequence[Read]


@dataclass(frozen=True, eq=False)
class BackwardType:
    """What the graph needs to know of the adjoint of a cell.

    Attributes
    ----------
    sections : list of SectionType
        In the order they run; empty if its nodes compute nothing.
    slots : sequence of (Source or None)
        For each operand of the cell, the output that is its gradient.
    pairs : sequence of int
        The outputs of the cell of which it takes two cotangents.
    """

    sections: list[SectionType]
    slots: Sequence[Source | None]
    pairs: Sequence[int] = ()


@dataclass(frozen=True, eq=False)
class Group:
    """The nodes of one type that have cotangents.

    Attributes
    ----------
    type_id : int
    forward : int array
        Their numbers in the forward graph.
    rows : int array
        How many variadic rows each has.
    sections : list of int array
        For each section the numbers of its nodes in the backward graph, node after node and row after row.
    section_types : list of int
        Their types in the backward graph.
    """

    type_id: int
    forward: np.ndarray
    rows: np.ndarray
    sections: list[np.ndarray]
    section_types: list[int]


@dataclass(frozen=True, eq=False)
class BackwardGraph:
    """A backward graph, its schedule, and where the gradients are.

    Attributes
    ----------
    graph : InstanceGraph
        Its external rows are the cotangents that were given, and the operands and values of the forward nodes.
    schedule : Schedule
    types : tuple of int
        The types of the forward nodes that have cotangents, rising.
    find_groups : callable
        Gives these nodes, a group for each type.
    cotangent : int array of shape [forward nodes, outputs, 2]
        What the cotangent of each output is in the backward graph: a value, an external row, zero. Where the adjoint
        takes two, both.
    external_use : int64 array
        Values of the backward graph that are gradients of external rows of the forward graph.
    external_of : int64 array
        The external row of each.
    arrays : BackwardArrays or None
        What the compiled kernel gave, if it made the graph.
    """

    graph: InstanceGraph
    schedule: Schedule
    types: tuple[int, ...]
    find_groups: Callable[[], list[Group]]
    cotangent: np.ndarray
    external_use: np.ndarray
    external_of: np.ndarray
    arrays: BackwardArrays | None = None

    @cached_property
    def groups(self) -> list[Group]:
        """The nodes that have cotangents, a group for each type."""
        return self.find_groups()
