"""A slow, obvious reading of instance graphs: plain Python objects, one node at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from edbatch_tvm.graph import FIRST_EXTERNAL, ZERO, InstanceGraph


def plain(graph: InstanceGraph) -> list[dict[str, Any]]:
    """Each instance as ``{"nodes": [...], "outputs": [...]}`` with node numbers that begin at 0.

    A node is ``(cell, operands, attributes)``; an operand is ``("node", number, slot)``, ``"zero"`` or
    ``("external", shape, dtype, bytes of the row)``.
    """
    seen = [0] * graph.num_types
    instances = []
    for index in range(graph.num_instances):
        begin, end = int(graph.node_ptr[index]), int(graph.node_ptr[index + 1])
        nodes = []
        for node in range(begin, end):
            kind = int(graph.node_type[node])
            operands = [
                _value(graph, int(graph.operand_value[edge]), begin)
                for edge in range(graph.operand_ptr[node], graph.operand_ptr[node + 1])
            ]
            attributes = {
                name: rows[seen[kind]].tolist() for (owner, name), rows in graph.attributes.items() if owner == kind
            }
            seen[kind] += 1
            nodes.append((graph.type_names[kind], operands, attributes))
        declared = graph.outputs[graph.output_ptr[index] : graph.output_ptr[index + 1]]
        instances.append({"nodes": nodes, "outputs": [_value(graph, int(value), begin) for value in declared]})
    return instances


def _value(graph: InstanceGraph, value: int, begin: int) -> Any:
    if value == ZERO:
        return "zero"
    if value <= FIRST_EXTERNAL:
        index = FIRST_EXTERNAL - value
        row = graph.external_data[graph.external_spec[index]][graph.external_row[index]]
        return "external", row.shape, str(row.dtype), row.tobytes()
    return "node", value // graph.stride - begin, value % graph.stride


def assert_same(left: InstanceGraph, right: InstanceGraph) -> None:
    """The graphs are equal array by array (external rows by content)."""
    for name in ("node_type", "operand_ptr", "operand_value", "outputs", "node_ptr", "output_ptr", "scalar_output"):
        one, other = getattr(left, name), getattr(right, name)
        assert one.dtype == other.dtype, name
        np.testing.assert_array_equal(one, other, err_msg=name)
    assert left.signature == right.signature
    assert left.type_names == right.type_names
    assert plain(left) == plain(right)
