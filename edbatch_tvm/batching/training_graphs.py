"""Graphs to learn from: over one list of types, and new minibatches drawn from the instances of given ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edbatch_tvm.errors import PolicyError
from edbatch_tvm.graph import InstanceGraph, require_checked


def over_one_type_list(graphs: Sequence[InstanceGraph]) -> tuple[list[InstanceGraph], tuple[str, ...]]:
    """`graphs` as bare graphs over one list of types, and the names of these.

    Minibatches of a bare graph may lack some of the types; cells of a model must be the same.

    Raises
    ------
    PolicyError
        If there are no nodes, or the graphs are of different models.
    """
    if isinstance(graphs, InstanceGraph) or not isinstance(graphs, Sequence):
        raise PolicyError(f"graphs in a {type(graphs).__name__}", "a list of graphs to learn from")
    for graph in graphs:
        require_checked(graph)
    if not any(graph.num_nodes for graph in graphs):
        raise PolicyError(f"{len(graphs)} graphs without a node", "graphs to learn from")
    first = graphs[0]
    if first.signature is not None or first.type_label is None:
        for index, graph in enumerate(graphs):
            if graph.type_names != first.type_names:
                raise PolicyError(
                    f"graph {index} has cells {', '.join(graph.type_names)}",
                    f"those of graph 0, {', '.join(first.type_names)}",
                )
        return [_bare(graph, graph.node_type, first.num_types) for graph in graphs], first.type_names
    labels = [graph.type_label if graph.type_label is not None else np.arange(graph.num_types) for graph in graphs]
    joint = np.unique(np.concatenate(labels))
    bare = [
        _bare(graph, np.searchsorted(joint, label).astype(np.int16)[graph.node_type], len(joint))
        for graph, label in zip(graphs, labels, strict=True)
    ]
    return bare, tuple(map(str, joint.tolist()))


def _bare(graph: InstanceGraph, node_type: np.ndarray, num_types: int) -> InstanceGraph:
    bare = InstanceGraph(
        node_type, graph.operand_ptr, graph.operand_node, node_ptr=graph.node_ptr, type_label=np.arange(num_types)
    )
    bare.checked = True
    return bare


class Resampler:
    """New minibatches of instances drawn from given minibatches.

    Parameters
    ----------
    graphs : sequence of InstanceGraph
        As :func:`over_one_type_list` returns them.
    seed : int
    """

    def __init__(self, graphs: Sequence[InstanceGraph], seed: int) -> None:
        self._graphs = [graph for graph in graphs if graph.num_nodes]
        self._instances = [
            (which, first, last)
            for which, graph in enumerate(self._graphs)
            for first, last in zip(graph.node_ptr[:-1].tolist(), graph.node_ptr[1:].tolist(), strict=True)
            if last > first
        ]
        self._sizes = [graph.num_instances for graph in self._graphs]
        self._random = np.random.default_rng(seed)

    def draw(self) -> InstanceGraph:
        """A minibatch as large as one of the given ones, or, one time in four, smaller."""
        size = self._sizes[int(self._random.integers(len(self._sizes)))]
        if self._random.random() < 0.25:
            size = int(self._random.integers(1, size + 1))
        chosen = self._random.integers(len(self._instances), size=size).tolist()
        types, counts, nodes, start = [], [np.zeros(1, np.int32)], [], 0
        for which, first, last in (self._instances[index] for index in chosen):
            graph = self._graphs[which]
            pointer = graph.operand_ptr[first : last + 1]
            producer = graph.operand_node[pointer[0] : pointer[-1]]
            types.append(graph.node_type[first:last])
            counts.append(np.diff(pointer))
            nodes.append(np.where(producer >= 0, producer + np.int32(start - first), np.int32(-1)))
            start += last - first
        drawn = InstanceGraph(
            np.concatenate(types),
            np.cumsum(np.concatenate(counts), dtype=np.int32),
            np.concatenate(nodes),
            type_label=self._graphs[0].type_label,
        )
        drawn.checked = True
        return drawn
