"""Depths, typewise heights and the lower bound on the number of batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edbatch_tvm.batching import native_kernels
from edbatch_tvm.graph.validate import require_checked

if TYPE_CHECKING:
    from edbatch_tvm.graph import InstanceGraph


def depths(graph: InstanceGraph) -> list[int]:
    """Edges on the longest path that ends at each node."""
    pointer, producer = graph.operand_ptr.tolist(), graph.operand_node.tolist()
    depth: list[int] = []
    for node in range(graph.num_nodes):
        before = [depth[p] + 1 for p in producer[pointer[node] : pointer[node + 1]] if p >= 0]
        depth.append(max(before, default=0))
    return depth


def reference_heights(graph: InstanceGraph) -> np.ndarray:
    """:func:`heights` in plain Python."""
    height = np.zeros((graph.num_nodes, graph.num_types), np.int32)
    pointer, producer, types = graph.operand_ptr.tolist(), graph.operand_node.tolist(), graph.node_type.tolist()
    for node in reversed(range(graph.num_nodes)):
        own = height[node]
        own[types[node]] += 1
        for p in producer[pointer[node] : pointer[node + 1]]:
            if p >= 0:
                np.maximum(height[p], own, out=height[p])
    return height


def heights(graph: InstanceGraph) -> np.ndarray:
    """Typewise heights: the largest number of nodes of each type on a path that starts at each node.

    Returns
    -------
    int32 array of shape [nodes, types]
    """
    kernels = native_kernels.kernels()
    return reference_heights(graph) if kernels is None else kernels.heights(graph)


def lower_bound(graph: InstanceGraph) -> int:
    """The lower bound: no schedule has fewer batches.

    Sum over the types of the largest number of nodes of the type on one path (Chen et al., ICML 2023, section 3.1): two
    nodes of one path never share a batch, and batches of different types are different.

    Examples
    --------
    >>> from edbatch_tvm.graph import InstanceGraph
    >>> lower_bound(InstanceGraph.from_arrays([0, 0, 1, 1], [0, 0, 0, 1, 2], [0, 2]))
    3
    """
    require_checked(graph)
    if not graph.num_nodes:
        return 0
    return int(heights(graph).max(axis=0).sum())
