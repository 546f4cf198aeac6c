"""Seconds of each batch, measured by running the batches of a plan one at a time."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import Plan
from edbatch_tvm.runtime import Model


def batch_seconds(model: Model, graph: InstanceGraph, plan: Plan, repeat: int = 5) -> np.ndarray:
    """Seconds of each batch of `plan`: the least of `repeat` runs, less that of a run of no batch.

    Every batch reads what the runs before it left in the arenas, so the values are those of the whole minibatch.

    Parameters
    ----------
    model : Model
    graph : InstanceGraph
    plan : Plan
        Of `graph`.
    repeat : int

    Returns
    -------
    float64 array of shape [batches]
        0 where the batch took no longer than the run of no batch.
    """
    batches = len(plan.steps)
    seconds = np.empty((max(1, repeat), batches + 1))
    with model.executor.parts(graph, plan) as run:
        run(0, batches)
        for row in seconds:
            begins = [0.0] * (batches + 2)
            for batch in range(batches):
                begins[batch] = perf_counter()
                run(batch, batch + 1)
            begins[batches] = perf_counter()
            run(0, 0)
            begins[batches + 1] = perf_counter()
            row[:] = np.diff(begins)
    least = seconds.min(axis=0)
    result: np.ndarray = np.maximum(least[:-1] - least[-1], 0.0)
    return result
