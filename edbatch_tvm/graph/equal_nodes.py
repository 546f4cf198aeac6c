"""Nodes that compute the same once: those of one cell with equal operands and attributes become one node."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from edbatch_tvm.find_native import find_native
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.graph.node_users import Uses
from edbatch_tvm.graph.validate import require_checked


class EqualNodes(NamedTuple):
    """A graph without the nodes that compute what another one computes.

    Attributes
    ----------
    graph : InstanceGraph
        The nodes that are left: of equal ones the first. Instances may share nodes; its ``node_ptr`` says where those
        begin that an instance is the first to have.
    node : int32 array of shape [nodes of the original]
        The node of `graph` that computes the values of each node.
    stride : int
        Of both graphs.
    """

    graph: InstanceGraph
    node: np.ndarray
    stride: int

    @property
    def merged(self) -> int:
        """How many nodes are computed by another one."""
        return len(self.node) - self.graph.num_nodes

    def values(self, values: np.ndarray) -> np.ndarray:
        """Values of the original as values of `graph`; zeros and external rows stay."""
        producer, slot = np.divmod(values, values.dtype.type(self.stride))
        found = self.node[np.where(values >= 0, producer, 0)].astype(values.dtype) * self.stride + slot
        return np.where(values >= 0, found, values)


class Merged(NamedTuple):
    """What a kernel finds.

    Attributes
    ----------
    node : int32 array of shape [nodes]
        The node that is left for each node.
    kept : int32 array of shape [m]
        The nodes that are left, ascending.
    operand_ptr, operand_value : int32 arrays
        Their operands.
    uses : Uses or None
        Their users, if they are known.
    """

    node: np.ndarray
    kept: np.ndarray
    operand_ptr: np.ndarray
    operand_value: np.ndarray
    uses: Uses | None = None


class EqualNodesKernel(Protocol):
    """What a fast backend offers."""

    def merged(self, graph: InstanceGraph) -> Merged:
        """Equal nodes of a checked graph."""


def merge_equal_nodes(graph: InstanceGraph) -> EqualNodes:
    """Nodes of one cell with the same operands and attributes as one node, and so on along the graph.

    Attributes are the same if their bytes are. External rows are the same if they are one row.

    Parameters
    ----------
    graph : InstanceGraph
        Checked; of one instance or several.

    Returns
    -------
    EqualNodes

    Raises
    ------
    GraphError
        If `graph` was not checked.

    Examples
    --------
    >>> diamond = InstanceGraph.from_arrays([0, 0, 1], [0, 0, 0, 2], [0, 1])
    >>> merge_equal_nodes(diamond).node
    array([0, 0, 1], dtype=int32)
    """
    require_checked(graph)
    kernel: EqualNodesKernel | None = find_native("merge equal nodes")
    found = reference(graph) if kernel is None or not graph.num_nodes else kernel.merged(graph)
    made = InstanceGraph(
        graph.node_type[found.kept],
        found.operand_ptr,
        found.operand_value,
        graph.signature,
        attributes=_attributes(graph, found.kept),
        outputs=graph.outputs,
        node_ptr=np.searchsorted(found.kept, graph.node_ptr).astype(np.int32),
        output_ptr=graph.output_ptr,
        external_spec=graph.external_spec,
        external_row=graph.external_row,
        external_data=graph.external_data,
        type_label=graph.type_label,
        scalar_output=graph.scalar_output,
    )
    result = EqualNodes(made, found.node, graph.stride)
    made.outputs = result.values(graph.outputs)
    made.checked = True
    if found.uses is not None:
        made.uses = found.uses
    return result


def reference(graph: InstanceGraph) -> Merged:
    """Equal nodes, one node at a time."""
    stride, types = graph.stride, graph.node_type.tolist()
    operands, ends = graph.operand_value.tolist(), graph.operand_ptr.tolist()
    columns: dict[int, list[np.ndarray]] = {}
    for (type_id, _), rows in graph.attributes.items():
        columns.setdefault(type_id, []).append(rows)
    ordinals = [0] * graph.num_types
    known: dict[tuple[int, tuple[int, ...], bytes], int] = {}
    node: list[int] = []
    kept: list[int] = []
    new_ptr, new_value = [0], list[int]()
    for v, type_id in enumerate(types):
        own = tuple(
            node[value // stride] * stride + value % stride if value >= 0 else value
            for value in operands[ends[v] : ends[v + 1]]
        )
        ordinal = ordinals[type_id]
        ordinals[type_id] += 1
        attributes = b"".join(rows[ordinal].tobytes() for rows in columns.get(type_id, ()))
        place = known.setdefault((type_id, own, attributes), len(kept))
        node.append(place)
        if place == len(kept):
            kept.append(v)
            new_value += own
            new_ptr.append(len(new_value))
    arrays = [np.array(found, np.int32) for found in (node, kept, new_ptr, new_value)]
    return Merged(arrays[0], arrays[1], arrays[2], arrays[3])


def _attributes(graph: InstanceGraph, kept: np.ndarray) -> dict[tuple[int, str], np.ndarray]:
    """The attribute rows of the nodes that are left."""
    found = {}
    is_kept = np.zeros(graph.num_nodes, bool)
    is_kept[kept] = True
    rows_of: dict[int, np.ndarray] = {}
    for key, rows in graph.attributes.items():
        if key[0] not in rows_of:
            rows_of[key[0]] = np.flatnonzero(is_kept[graph.node_type == key[0]])
        found[key] = rows[rows_of[key[0]]]
    return found
