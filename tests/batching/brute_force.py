"""The fewest batches of a graph by brute force: an oracle that shares nothing with the code under test."""

from __future__ import annotations

from edbatch_tvm.graph import InstanceGraph


def fewest_batches(graph: InstanceGraph) -> int:
    """Breadth-first search over the sets of nodes that ran; for a dozen nodes."""
    waits = [
        set(graph.operand_node[graph.operand_ptr[v] : graph.operand_ptr[v + 1]].tolist())
        for v in range(graph.num_nodes)
    ]
    everything = frozenset(range(graph.num_nodes))
    layer, steps = {frozenset[int]()}, 0
    while everything not in layer:
        steps += 1
        following = set()
        for ran in layer:
            ready = [v for v in everything - ran if waits[v] <= ran]
            for t in range(graph.num_types):
                if batch := {v for v in ready if graph.node_type[v] == t}:
                    following.add(ran | batch)
        layer = following
    return steps
