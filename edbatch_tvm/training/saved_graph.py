"""Minibatch graphs of cells that save values for their adjoints: the same nodes with more outputs each."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.graph import InstanceGraph, Signature
from edbatch_tvm.graph.merge import wider_mark

_SAME_NODES = ("uses", "operand_node", "type_count", "num_types", "type_names")
"""What a graph has worked out that does not depend on how many outputs a node has."""


def with_saved_values(graph: InstanceGraph, signature: Signature) -> InstanceGraph:
    """`graph` over cells that return more than those it was built of, after what these return.

    Parameters
    ----------
    graph : InstanceGraph
        A merged graph.
    signature : Signature
        The cells of the same names with more outputs.
    """
    assert graph.signature is not None
    old, new = graph.stride, signature.stride
    arena = np.array([signature.arena(spec) for spec in graph.signature.value_specs], np.int16)
    data = [np.empty((0, *spec.shape), spec.dtype) for spec in signature.value_specs]
    for place, rows in zip(arena.tolist(), graph.external_data, strict=False):
        data[place] = rows
    made = InstanceGraph(
        graph.node_type,
        graph.operand_ptr,
        renumbered(graph.operand_value, old, new),
        signature,
        attributes=graph.attributes,
        outputs=renumbered(graph.outputs, old, new),
        node_ptr=graph.node_ptr,
        output_ptr=graph.output_ptr,
        external_spec=arena[graph.external_spec],
        external_row=graph.external_row,
        external_data=tuple(data) if graph.external_data else (),
        scalar_output=graph.scalar_output,
    )
    made.checked, made.serial = graph.checked, graph.serial
    if graph.part_digests is not None:
        made.part_digests = graph.part_digests ^ wider_mark(old, new)  # another structure to caches
    made.__dict__.update({name: graph.__dict__[name] for name in _SAME_NODES if name in graph.__dict__})
    return made


def renumbered(values: np.ndarray, old: int, new: int) -> np.ndarray:
    """Values ``node * old + slot`` as ``node * new + slot``; zeros and external rows stay."""
    if old == new:
        return values
    made = values + values // old * values.dtype.type(new - old)
    return np.where(values >= 0, made, values)
