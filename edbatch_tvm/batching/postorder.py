"""Policy ``postorder``: operands right before the node that reads them, for values that fill caches."""

from __future__ import annotations

from edbatch_tvm.batching.policy import Policy, Run, register_policy
from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.graph import InstanceGraph


class PostorderPolicy(Policy):
    """Nodes depth first, of two operands the one with more nodes below it first.

    Neighbours in this order are one batch as long as they are of one type and none reads another. So batches are as
    many as nodes, nearly. A value of tens of kilobytes is read while it is in a cache; a batch of many nodes would have
    written it to memory before. What a batch costs beside its kernels does not count then.
    """

    name = "postorder"

    def run(self, graph: InstanceGraph) -> Run:
        """Schedule `graph`."""
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
        return Run(Schedule.from_batches(graph, batches), self.name)


def _order(pointer: list[int], producer: list[int], nodes: int) -> list[int]:
    """The nodes, each after what it reads: depth first from those that nobody reads."""
    below, read = [1.0] * nodes, [False] * nodes
    for node in range(nodes):
        for operand in {one for one in producer[pointer[node] : pointer[node + 1]] if one >= 0}:
            below[node] += below[operand]
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
