"""The backward graph of a minibatch by the compiled kernel; :mod:`edbatch_tvm.training.backward_graph` is the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.find_native import find_native
from edbatch_tvm.graph import InstanceGraph, Signature
from edbatch_tvm.memory import Plan
from edbatch_tvm.native.backward_tables import (
    BACKWARD_ARENA,
    COTANGENT,
    FIRST_READ,
    LAST_READ,
    NUMBER,
    OF_EACH_ROW,
    OPERAND,
    OUTPUT,
    PART,
    PER_NODE,
    PER_ROW,
    PER_SQUARE,
    RANK,
    ROWS,
    SIMPLE,
    SUM_TYPE,
    TYPE,
    VALUE,
    BackwardArrays,
    BackwardSteps,
    TypeTables,
)
from edbatch_tvm.training.backward_graph import backward_graph
from edbatch_tvm.training.backward_types import BackwardGraph, BackwardType, Group, SectionType
from edbatch_tvm.training.graph_rows import OperandEntries, ranges
from relay_ext.gradients.sections import ROW_NUMBER

_KINDS = {"operand": OPERAND, "value": VALUE, "cotangent": COTANGENT, "output": OUTPUT}


class BackwardGraphs:
    """Makes the backward graphs of minibatches.

    Parameters
    ----------
    forward, backward : Signature
    types : sequence of BackwardType
        For each cell of the forward signature.
    sum_types : mapping of int to int
        The type that adds values of an arena of the forward signature.
    cells : Signature, optional
        Those of the forward signature without the outputs that they save, which have no cotangents.

    Attributes
    ----------
    tables : TypeTables
        The adjoints as compiled kernels take them.
    section_of : dict of int to (int, SectionType)
        For each type of sections the type of the forward nodes, and the section.
    """

    def __init__(
        self,
        forward: Signature,
        backward: Signature,
        types: Sequence[BackwardType],
        sum_types: Mapping[int, int],
        cells: Signature | None = None,
    ) -> None:
        self._backward = backward
        self._types = types
        self._sum_types = sum_types
        self._outputs = (cells or forward).stride
        self.tables = _type_tables(forward, backward, types, sum_types, cells or forward)
        self.section_of = {
            section.type_id: (type_id, section) for type_id, one in enumerate(types) for section in one.sections
        }

    def make(
        self, graph: InstanceGraph, plan: Plan, given: np.ndarray, detached: np.ndarray | None = None
    ) -> BackwardGraph:
        """The backward graph of a minibatch; see :func:`~edbatch_tvm.training.backward_graph.backward_graph`."""
        native = find_native("build backward graphs") if graph.num_nodes else None
        if native is None:
            return self.make_in_numpy(graph, plan, given, detached)
        return self._graph(graph, native.arrays(graph, plan, given, detached, self.tables, self._backward.stride))

    def make_in_numpy(
        self, graph: InstanceGraph, plan: Plan, given: np.ndarray, detached: np.ndarray | None = None
    ) -> BackwardGraph:
        """The same by :func:`~edbatch_tvm.training.backward_graph.backward_graph`."""
        known = self._types, self._backward, self._sum_types, self._outputs
        return backward_graph(graph, plan, given, *known, detached)

    def _graph(self, graph: InstanceGraph, arrays: BackwardArrays) -> BackwardGraph:
        attributes = {}
        for type_id in np.flatnonzero(graph.type_count).tolist():
            for section in self._types[type_id].sections:
                for attribute in self._backward[section.type_id].attributes:
                    rows = section_attribute(graph, type_id, section, attribute.name, arrays)
                    attributes[section.type_id, attribute.name] = rows
        made = InstanceGraph(
            arrays.node_type,
            arrays.operand_ptr,
            arrays.operand_value,
            self._backward,
            attributes=attributes,
            external_spec=arrays.external_spec,
            external_row=arrays.external_row,
        )
        # A type of sums is no type of sections: a batch ends where the type or the turn changes.
        batch_type = arrays.node_type[arrays.batch_ptr[:-1]]
        order = np.arange(len(arrays.node_type), dtype=np.int32)
        schedule = Schedule.for_graph(made, order, arrays.batch_ptr, batch_type)
        types = tuple(np.flatnonzero(np.diff(arrays.group_ptr)).tolist())

        def groups() -> list[Group]:
            return [self._group(graph, type_id, _nodes(arrays, type_id), arrays.place_of) for type_id in types]

        uses = arrays.external_use, arrays.external_of
        return BackwardGraph(made, schedule, types, groups, arrays.cotangent, *uses, arrays)

    def _group(self, graph: InstanceGraph, type_id: int, nodes: np.ndarray, place_of: np.ndarray) -> Group:
        rows = OperandEntries(graph, type_id, nodes).rows
        sections = []
        for number, section in enumerate(self._types[type_id].sections):
            places = place_of[nodes, number].astype(np.int64)
            sections.append(ranges(places, rows) if section.per_row else places)
        types = [section.type_id for section in self._types[type_id].sections]
        return Group(type_id, nodes.astype(np.int64), rows, sections, types)


def section_attribute(
    graph: InstanceGraph, type_id: int, section: SectionType, name: str, arrays: BackwardArrays | BackwardSteps
) -> np.ndarray:
    """An attribute of the nodes of a section of the adjoint of a type, in the order of the schedule."""
    nodes = _nodes(arrays, type_id)
    if name == ROW_NUMBER:
        count = OperandEntries(graph, type_id, nodes).rows
        return ranges(np.zeros_like(count), count).astype(np.int32)
    ranks = arrays.node_rank[nodes]
    if section.per_row:
        ranks = np.repeat(ranks, OperandEntries(graph, type_id, nodes).rows)
    rows: np.ndarray = graph.attributes[type_id, name][ranks]
    return rows


def _nodes(arrays: BackwardArrays | BackwardSteps, type_id: int) -> np.ndarray:
    """The nodes of a type that have cotangents."""
    return arrays.node_order[arrays.group_ptr[type_id] : arrays.group_ptr[type_id + 1]]


def _type_tables(
    forward: Signature,
    backward: Signature,
    types: Sequence[BackwardType],
    sum_types: Mapping[int, int],
    cells: Signature,
) -> TypeTables:
    """The adjoints as the kernel takes them."""
    most = max(1, *(len(one.sections) for one in types))
    operands = max(1, *(len(cell.operands) for cell in forward))
    sections = np.zeros((len(types), most, 5), np.int32)
    sections[:, :, TYPE] = -1
    slots = np.full((len(types), operands, 2), -1, np.int32)
    reads: list[tuple[int, ...]] = []
    specs = list(backward.value_specs)
    for type_id, (cell, one) in enumerate(zip(forward, types, strict=True)):
        for number, section in enumerate(one.sections):
            own = sections[type_id, number]
            own[TYPE], own[PER_ROW], own[FIRST_READ] = section.type_id, section.per_row, len(reads)
            rows = section.per_row
            for read in section.reads:
                source, arena = read.source, -1
                if source.kind == "operand":
                    arena = specs.index(cell.operands[source.number].spec)
                    rows |= cell.operands[source.number].variadic
                elif source.kind == "value":
                    arena = specs.index(cell.outputs[source.number])
                elif source.kind == "output":
                    rows |= one.sections[source.part].per_row
                rows |= read.every_row
                reads.append((source.part, source.number, _KINDS[source.kind], int(read.every_row), arena))
            own[LAST_READ], own[SIMPLE] = len(reads), not rows
        for number, slot in enumerate(one.slots):
            if slot is not None:
                slots[type_id, number, PART], slots[type_id, number, NUMBER] = slot.part, slot.number
    arenas = np.zeros((len(forward.value_specs), 4), np.int32)
    arenas[:, SUM_TYPE] = [sum_types.get(arena, -1) for arena in range(len(arenas))]
    arenas[np.argsort(arenas[:, SUM_TYPE], kind="stable"), RANK] = np.arange(len(arenas))
    arenas[:, BACKWARD_ARENA] = [specs.index(spec) if spec in specs else -1 for spec in forward.value_specs]
    arenas[:, ROWS] = 0
    found = np.array(reads or [(0,) * 5], np.int32)
    cotangents = np.zeros((len(types), cells.stride), np.int32)
    for own, cell, one in zip(cotangents, cells, types, strict=True):
        own[: len(cell.outputs)] = 1
        own[list(one.pairs)] = 2
    return TypeTables(sections, slots, found, arenas, cotangents, _bounds(types), len(specs))


def _bounds(types: Sequence[BackwardType]) -> np.ndarray:
    """See :class:`TypeTables`."""
    bounds = np.zeros((len(types), 3, 2), np.int64)
    for own, one in zip(bounds, types, strict=True):
        for section in one.sections:
            every = sum(read.every_row for read in section.reads)
            own[OF_EACH_ROW if section.per_row else PER_NODE] += 1, len(section.reads) - every
            own[PER_SQUARE if section.per_row else OF_EACH_ROW, 1] += every
    return bounds
