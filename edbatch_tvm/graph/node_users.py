"""Who waits for whom: the users of each node, which is what schedulers walk along."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Uses(NamedTuple):
    """The edges of a graph from producers to users; one that reads several values of a producer counts once.

    A state h and its c are one edge, so that schedulers follow half of the operands.

    Attributes
    ----------
    ptr : int32 array of shape [nodes + 1]
        The users of node v are ``user[ptr[v]:ptr[v + 1]]``, in ascending order.
    user : int32 array of shape [ptr[-1]]
    waits : int32 array of shape [nodes]
        Number of nodes whose values each node reads.
    """

    ptr: np.ndarray
    user: np.ndarray
    waits: np.ndarray


def find_uses(operand_ptr: np.ndarray, operand_node: np.ndarray) -> Uses:
    """The uses of a graph.

    Parameters
    ----------
    operand_ptr : int array of shape [nodes + 1]
    operand_node : int array of shape [operands]
        Producer of each operand, or -1.
    """
    nodes = len(operand_ptr) - 1
    edge = np.repeat(np.arange(nodes), np.diff(operand_ptr))
    edge += operand_node.astype(np.int64) * nodes
    edge = edge[operand_node >= 0]
    edge.sort()
    edge = edge[np.diff(edge, prepend=-1) != 0]
    producer, user = np.divmod(edge, max(nodes, 1))
    ptr = np.zeros(nodes + 1, np.int32)
    np.cumsum(np.bincount(producer, minlength=nodes), out=ptr[1:])
    return Uses(ptr, user.astype(np.int32), np.bincount(user, minlength=nodes).astype(np.int32))
