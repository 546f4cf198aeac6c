"""Instance graphs of random typed DAGs."""

from __future__ import annotations

from collections.abc import Sequence

from edbatch_tvm.graph import Builder, InstanceGraph, Value

INNER = ("dense", "gated", "weighted", "largest")
"""Cells of the inner nodes."""

Node = int | tuple[str, tuple[int, ...]]
"""The word id of an input, or the cell of an inner node and the earlier nodes that it reads."""


def dag_graph(builder: Builder, nodes: Sequence[Node]) -> InstanceGraph:
    """The graph of one DAG; the readouts of the nodes that no other reads are the declared outputs, in order."""
    call = builder.call
    values: list[Value] = []
    unread: dict[Value, None] = {}
    for node in nodes:
        if isinstance(node, int):
            value = call("input", word=node)
        else:
            cell, operands = node
            read = [values[operand] for operand in operands]
            for operand in read:
                unread.pop(operand, None)
            value = call(cell, read)
        unread[value] = None
        values.append(value)
    return builder.finish([call("readout", value) for value in unread])
