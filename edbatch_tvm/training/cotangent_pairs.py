"""Which adjoints take two cotangents of an output, so that no node of its own has to add them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edbatch_tvm.graph import InstanceGraph, Signature
from relay_ext.gradients.adjoint_cells import AdjointCell
from relay_ext.gradients.adjoint_inputs import can_pair


def cotangent_pairs(
    graph: InstanceGraph, given: np.ndarray, cells: Signature, adjoints: Mapping[str, AdjointCell]
) -> dict[int, tuple[int, ...]]:
    """For each type the outputs that most of its nodes hand to two users, as far as its adjoint can take both.

    The sum has the same bits either way: an adjoint that takes two adds them in the same order.

    Parameters
    ----------
    graph : InstanceGraph
        A typical minibatch.
    given : int array
        The values whose cotangents are given.
    cells : Signature
        Those of the graph, without what they save.
    adjoints : mapping of str to AdjointCell
        Of the cells.
    """
    stride = graph.stride
    values = graph.operand_value[graph.operand_value >= 0]
    uses = np.bincount(values, minlength=graph.num_nodes * stride)
    uses[given] += 1
    found = {}
    for type_id, cell in enumerate(cells):
        own = uses.reshape(-1, stride)[graph.node_type == type_id]
        places = can_pair(adjoints[cell.name])
        found[type_id] = tuple(one for one in places if 2 * (own[:, one] == 2).sum() > (own[:, one] > 0).sum())
    return found
