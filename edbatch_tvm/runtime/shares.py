"""Shares of a minibatch: each thread runs the batches of its own instances, and waits for no other until the end.

Instances of a minibatch do not read each other. So the rows of a batch that belong to the instances of one share depend
on rows of this share alone, and no thread has to wait for another one between two batches. That is what small hidden
sizes need: a batch of theirs takes tens of microseconds, of which a barrier and an uneven division of its tiles were a
large part.
"""

from __future__ import annotations

import numpy as np

from edbatch_tvm.find_native import find_native
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import Plan

LARGEST_PERCENT = 125
"""Work of the largest share, in percent of the mean, up to which a minibatch is divided: the others then help."""

PIECE_MULTIPLIES = 15_000
"""Multiplications that take as long as what a kernel takes for a piece of a batch beside its nodes, about 0.3 µs: the
call, weights that come from a cache, tiles that are not full."""


def divide(
    graph: InstanceGraph, plan: Plan, work: np.ndarray, most: np.ndarray, threads: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """The steps of a plan, divided into a share for each of several threads.

    Parameters
    ----------
    graph : InstanceGraph
    plan : Plan
        Of this graph.
    work : int64 array of shape [2, types]
        That of a node of each type, in any unit, and what a piece of a batch takes beside that of its nodes.
    most : int64 array
        Of each type the most nodes of a step.
    threads : int

    Returns
    -------
    steps : int32 array
        Those of the first share, then those of the second, ...
    first : int32 array of shape [threads + 1]
        Where those of each share begin.

    None in their place where shares would differ much in their work, where instances read each other (equal nodes were
    merged), where the plan mixes the nodes of instances within batches, and where no native kernels are.
    """
    native = find_native("plan")
    if native is None or not graph.num_nodes:
        return None
    found: tuple[np.ndarray, np.ndarray] | None = native.divide(graph, plan, work, most, threads, LARGEST_PERCENT)
    return found
