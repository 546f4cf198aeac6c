"""Policy ``postorder``: operands right before the node that reads them, for values that fill caches."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.batching import native_kernels
from edbatch_tvm.batching.policy import Policy, Run, register_policy
from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.graph import InstanceGraph

MOST_BELOW = 1 << 60
"""Nodes of a DAG are counted once for each path to them, which may be any number; more than these are not."""

LARGE_VALUE = 16 << 10
"""Bytes of one value from which on a batch of more nodes gains nothing."""

LARGE_MINIBATCH = 32 << 20
"""Bytes of the values of a minibatch that no longer fit usual caches."""


def fills_caches(graph: InstanceGraph) -> bool:
    """Whether the values of a minibatch exceed usual caches, and each is large enough to be a batch of its own."""
    signature = graph.signature
    if signature is None:
        return False
    sizes = np.array([spec.size * np.dtype(spec.dtype).itemsize for spec in signature.value_specs])
    if sizes.max(initial=0) < LARGE_VALUE:
        return False
    of_nodes = [int(sizes[row[row >= 0]].sum()) for row in signature.output_arena]
    return float(graph.type_count @ np.array(of_nodes, float)) >= LARGE_MINIBATCH


class PostorderPolicy(Policy):
    """Nodes depth first, of two operands the one with more nodes below it first.

    Neighbours in this order are one batch as long as they are of one type and none reads another. So batches are as
    many as nodes, nearly. A value of tens of kilobytes is read while it is in a cache; a batch of many nodes would have
    written it to memory before. What a batch costs beside its kernels does not count then.
    """

    name = "postorder"

    def run(self, graph: InstanceGraph) -> Run:
        """Schedule `graph`."""
        kernels = native_kernels.kernels()
        if kernels is None:
            return Run(self.reference(graph), self.name)
        return Run(Schedule.for_graph(graph, *kernels.postorder_schedule(graph)), self.name)

    def reference(self, graph: InstanceGraph) -> Schedule:
        """Schedule `graph` in plain Python."""
        pointer, producer = graph.operand_ptr.tolist(), graph.operand_node.tolist()
        types = graph.node_type.tolist()
        batches: list[tuple[int, list[int]]] = []
        for node in _order(pointer, producer, graph.num_nodes):
            last = batches[-1] if batches else None
            reads = producer[pointer[node] : pointer[node + 1]]
            if last is not None and last[0] == types[node] and not set(reads) & set(last[1]):
                last[1].append(node)
            else:
                batches.append((types[node], [node]))
        return Schedule.from_batches(graph, batches)


def _order(pointer: list[int], producer: list[int], nodes: int) -> list[int]:
    """The nodes, each after what it reads: depth first from those that nobody reads."""
    below, read = [1] * nodes, [False] * nodes
    for node in range(nodes):
        for operand in {one for one in producer[pointer[node] : pointer[node + 1]] if one >= 0}:
            below[node] = min(below[node] + below[operand], MOST_BELOW)
            read[operand] = True
    order: list[int] = []
    seen = [False] * nodes
    stack = [(node, False) for node in reversed(range(nodes)) if not read[node]]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif not seen[node]:
            seen[node] = True
            stack.append((node, True))
            reads = {one for one in producer[pointer[node] : pointer[node + 1]] if one >= 0 and not seen[one]}
            stack.extend((one, False) for one in sorted(reads, key=lambda one: (below[one], -one)))
    return order


register_policy("postorder", PostorderPolicy)
