"""Expansion of graphs of cells into graphs of single ops, without a loop over nodes.

A :class:`CellBody` says which ops a cell consists of; an :class:`ExpansionTable` has the bodies of all cells as flat
arrays, and :func:`expand` applies it to an instance graph or a minibatch graph. The result is an instance graph like
any other, over the signature of the ops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph.instance import FIRST_EXTERNAL, ZERO, InstanceGraph
from edbatch_tvm.graph.spec import Attribute, CellSignature, Signature


@dataclass(frozen=True)
class Source:
    """What an op reads: output `slot` of op `op` of the cell, or, where `op` is None, operand `slot` of the cell."""

    slot: int
    op: int | None = None

    def __str__(self) -> str:
        return f"operand {self.slot}" if self.op is None else f"%{self.op}.{self.slot}"


@dataclass(frozen=True)
class OpCall:
    """One op in the body of a cell.

    Attributes
    ----------
    type_id : int
        Which op, in the signature of the ops.
    operands : tuple of Source
        One for each operand of the op. A variadic one takes all rows of a variadic operand of the cell, or the results
        of all calls of an op of `rows`.
    attributes : tuple of str
        For each attribute of the op, the attribute of the cell that it is.
    rows : bool
        Whether the op is called once for each of the ``k`` rows of the cell's variadic operands; call ``j`` then reads
        row ``j`` of operands of this kind.
    """

    type_id: int
    operands: tuple[Source, ...]
    attributes: tuple[str, ...] = ()
    rows: bool = False


@dataclass(frozen=True)
class CellBody:
    """The ops of a cell, producers first, and which of their outputs are the outputs of the cell."""

    calls: tuple[OpCall, ...]
    outputs: tuple[Source, ...]

    def format(self, ops: Signature) -> str:
        """The body as text, one op per line; ``k *`` marks an op that is called for each row."""
        lines = []
        for number, call in enumerate(self.calls):
            inputs = ", ".join([*map(str, call.operands), *call.attributes])
            lines.append(f"%{number} = {'k * ' if call.rows else ''}{ops[call.type_id].name}({inputs})")
        return "\n".join([*lines, f"return {', '.join(map(str, self.outputs))}"])


class ExpansionTable:
    """Bodies of all cells as flat arrays.

    Parameters
    ----------
    cells, ops : Signature
        Operands of a cell that no op of its body reads are left out.
    bodies : sequence of CellBody
        One for each cell.

    Attributes
    ----------
    cells : Signature
        `cells`, with the bounds of index attributes that the ops are known to have.
    """

    def __init__(self, cells: Signature, ops: Signature, bodies: Sequence[CellBody]) -> None:
        self.cells = Signature(_bounded(cell, ops, body) for cell, body in zip(cells, bodies, strict=True))
        self.ops = ops
        self.bodies = tuple(bodies)
        calls = [(type_id, call) for type_id, body in enumerate(bodies) for call in body.calls]
        self.call_count = np.array([len(body.calls) for body in bodies], np.int32)
        self.row_count = np.array([sum(call.rows for call in body.calls) for body in bodies], np.int32)
        self.first_call = _offsets(self.call_count)
        self.call_type = np.array([call.type_id for _, call in calls], np.int16)
        self.call_rows = np.array([call.rows for _, call in calls], bool)
        self.edge_count = np.array([len(call.operands) for _, call in calls], np.int32)
        self.first_edge = _offsets(self.edge_count)
        edges = [
            self._edge(self.cells[type_id], bodies[type_id], call, position)
            for type_id, call in calls
            for position in range(len(call.operands))
        ]
        columns = np.array(edges, np.int32).reshape(-1, 6).T
        self.edge_op, self.edge_slot, self.edge_fixed, self.edge_variadic = columns[:4]
        self.edge_rows, self.edge_spread = columns[4:]
        self.output_call = np.full((len(bodies), cells.stride), -1, np.int32)
        self.output_slot = np.zeros((len(bodies), cells.stride), np.int32)
        for type_id, body in enumerate(bodies):
            for slot, source in enumerate(body.outputs):
                assert source.op is not None
                self.output_call[type_id, slot] = source.op
                self.output_slot[type_id, slot] = source.slot
        known = {spec: arena for arena, spec in enumerate(ops.value_specs)}
        self.arena = np.array([known.get(spec, -1) for spec in cells.value_specs], np.int16)
        self.attributes: dict[tuple[int, str], list[tuple[int, int, str]]] = {}
        for number, (type_id, call) in enumerate(calls):
            for attribute, name in zip(ops[call.type_id].attributes, call.attributes, strict=True):
                self.attributes.setdefault((call.type_id, attribute.name), []).append((number, type_id, name))

    def _edge(self, cell: CellSignature, body: CellBody, call: OpCall, position: int) -> tuple[int, ...]:
        """One operand: its op (-1: the cell) and slot, where the cell's slot begins, has it rows, does it take all."""
        source = call.operands[position]
        spread = self.ops[call.type_id].operands[position].variadic
        if source.op is not None:
            return source.op, source.slot, 0, 0, body.calls[source.op].rows, spread
        before = cell.operands[: source.slot]
        variadic = sum(operand.variadic for operand in before)
        return -1, source.slot, len(before) - variadic, variadic, cell.operands[source.slot].variadic, spread

    def __str__(self) -> str:
        texts = [f"{cell.name}:\n{body.format(self.ops)}" for cell, body in zip(self.cells, self.bodies, strict=True)]
        return "\n".join(texts)


@dataclass(frozen=True, eq=False)
class Expansion:
    """A graph of ops, and where the values of the graph of cells are in it.

    Attributes
    ----------
    graph : InstanceGraph
    value_of : int32 array of shape [nodes * stride]
        For each value of the graph of cells, the value that it is in `graph`; -1 for outputs that a cell lacks.
    """

    graph: InstanceGraph
    value_of: np.ndarray


def expand(graph: InstanceGraph, table: ExpansionTable) -> Expansion:
    """The graph of the ops of `graph`.

    Parameters
    ----------
    graph : InstanceGraph
        A graph, or a minibatch graph, over the cells of `table`.
    table : ExpansionTable

    Returns
    -------
    Expansion
        Instances, declared outputs and external rows are those of `graph`.

    Raises
    ------
    GraphError
        If the graph has other cells, or its ops are too many.
    """
    if graph.signature is not table.cells and graph.signature != table.cells:
        raise GraphError(f"a graph of the cells {graph.type_names}", f"the cells {table.cells.names}")
    return _Expander(graph, table).expansion()


class _Expander:
    """Three levels, each one array operation deep: calls of all cells, nodes (calls times rows), operands."""

    def __init__(self, graph: InstanceGraph, table: ExpansionTable) -> None:
        self.graph = graph
        self.table = table
        kind = graph.node_type
        fixed, variadic = (ends[kind, -1] for ends in table.cells.slot_end)
        self.rows = (np.diff(graph.operand_ptr) - fixed) // np.maximum(variadic, 1)
        nodes = int(np.sum(table.call_count[kind] + table.row_count[kind] * (self.rows - 1), dtype=np.int64))
        if nodes * table.ops.stride > np.iinfo(np.int32).max:
            raise GraphError(f"a graph of {nodes} ops", "values that fit int32", "use smaller minibatches")
        # Calls: which cell node makes it, which call of the table it is, where its nodes begin.
        self.cell, place = _ragged(table.call_count[kind])
        self.call_start = _offsets(table.call_count[kind])
        self.call = table.first_call[kind][self.cell] + place
        repeat = np.where(table.call_rows[self.call], self.rows[self.cell], 1)
        self.node_start = _offsets(repeat)
        # External rows: those of a spec that no op has are never read.
        self.external_spec = table.arena[graph.external_spec]
        self.external_read = self.external_spec >= 0
        # Nodes: their call, and which of its rows.
        self.call_of_node, self.row = _ragged(repeat)

    def expansion(self) -> Expansion:
        graph, table = self.graph, self.table
        node_type = table.call_type[self.call[self.call_of_node]]
        value_of = self._values()
        operand_ptr, operand_value = self._operands(value_of)
        node_of_instance = self.node_start[self.call_start[graph.node_ptr]].astype(np.int32)
        expanded = InstanceGraph(
            node_type,
            operand_ptr,
            operand_value,
            table.ops,
            attributes=self._attributes(node_type),
            outputs=value_of[graph.outputs],
            node_ptr=node_of_instance,
            output_ptr=graph.output_ptr,
            external_spec=self.external_spec[self.external_read],
            external_row=graph.external_row[self.external_read],
            external_data=self._external_data(),
            scalar_output=graph.scalar_output,
        )
        expanded.checked = graph.checked
        return Expansion(expanded, value_of)

    def _values(self) -> np.ndarray:
        table, kind = self.table, self.graph.node_type
        call = table.output_call[kind]
        node = self.node_start[np.where(call >= 0, self.call_start[:-1, None] + call, 0)]
        value = node * table.ops.stride + table.output_slot[kind]
        return np.where(call >= 0, value, -1).astype(np.int32).ravel()

    def _operands(self, value_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """CSR of the operands of all nodes."""
        graph, table = self.graph, self.table
        count = table.edge_count[self.call[self.call_of_node]]
        node, place = _ragged(count)
        call = self.call_of_node[node]
        edge = table.first_edge[self.call[call]] + place
        cell, row = self.cell[call], self.row[node]
        repeat = np.where(table.edge_spread[edge] > 0, self.rows[cell], 1)
        if table.edge_spread.any():
            owner, each = _ragged(repeat)
            row = np.where(table.edge_spread[edge[owner]] > 0, each, row[owner])
            node, edge, cell = node[owner], edge[owner], cell[owner]
        row *= table.edge_rows[edge]
        value = np.empty(len(edge), np.int32)
        outside = table.edge_op[edge] < 0
        at, of = edge[outside], cell[outside]
        position = graph.operand_ptr[of] + table.edge_fixed[at] + self.rows[of] * table.edge_variadic[at] + row[outside]
        value[outside] = self._translate(graph.operand_value[position], value_of)
        at = edge[~outside]
        producer = self.node_start[self.call_start[cell[~outside]] + table.edge_op[at]] + row[~outside]
        value[~outside] = producer * table.ops.stride + table.edge_slot[at]
        return _offsets(np.bincount(node, minlength=len(count))).astype(np.int32), value

    def _translate(self, given: np.ndarray, value_of: np.ndarray) -> np.ndarray:
        """Values of the graph of cells as values of the graph of ops."""
        number = np.cumsum(self.external_read, dtype=np.int32) - 1
        # Negative values index the end of the table: the zero state is last, external row 0 before it.
        table = np.concatenate([value_of, FIRST_EXTERNAL - number[::-1], [ZERO]])
        return table[given]

    def _attributes(self, node_type: np.ndarray) -> dict[tuple[int, str], np.ndarray]:
        graph, table = self.graph, self.table
        columns: dict[tuple[int, str], np.ndarray] = {}
        if not table.attributes:
            return columns
        rank = np.empty(graph.num_nodes, np.int32)
        for cell_type in range(graph.num_types):
            nodes = graph.nodes_of(cell_type)
            rank[nodes] = np.arange(len(nodes))
        nodes_of = {type_id: np.flatnonzero(node_type == type_id) for type_id, _ in table.attributes}
        for (type_id, name), origins in table.attributes.items():
            call = self.call_of_node[nodes_of[type_id]]
            spec = next(a.spec for a in table.ops[type_id].attributes if a.name == name)
            column = np.empty((len(call), *spec.shape), spec.dtype)
            for number, cell_type, given in origins:
                mine = self.call[call] == number
                if mine.any():
                    column[mine] = graph.attributes[cell_type, given][rank[self.cell[call[mine]]]]
            columns[type_id, name] = column
        return columns

    def _external_data(self) -> tuple[np.ndarray, ...]:
        if not self.graph.external_data:
            return ()
        found = dict(zip(self.table.arena.tolist(), self.graph.external_data, strict=True))
        return tuple(
            found[arena] if arena in found else np.empty((0, *spec.shape), spec.dtype)
            for arena, spec in enumerate(self.table.ops.value_specs)
        )


def _offsets(counts: np.ndarray) -> np.ndarray:
    """The start of each of consecutive groups of these sizes, and the end of the last."""
    ends = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=ends[1:])
    return ends


def _ragged(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For the members of consecutive groups of these sizes: their group, and their place in it."""
    group = np.repeat(np.arange(len(counts)), counts)
    return group, np.arange(len(group)) - _offsets(counts)[group]


def _bounded(cell: CellSignature, ops: Signature, body: CellBody) -> CellSignature:
    """`cell` with the tightest bound its ops set on each attribute."""
    bounds: dict[str, list[int]] = {}
    for call in body.calls:
        for attribute, name in zip(ops[call.type_id].attributes, call.attributes, strict=True):
            if attribute.bound is not None:
                bounds.setdefault(name, []).append(attribute.bound)

    def bounded(attribute: Attribute) -> Attribute:
        known = [] if attribute.bound is None else [attribute.bound]
        return replace(attribute, bound=min([*known, *bounds.get(attribute.name, [])], default=None))

    return replace(cell, attributes=tuple(map(bounded, cell.attributes)))
