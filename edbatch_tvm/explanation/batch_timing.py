"""Seconds of each batch, measured by running the batches of a plan one at a time."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import Plan
from edbatch_tvm.memory.unfused_plan import UnfusedPlan
from edbatch_tvm.runtime import Model


def batch_seconds(model: Model, graph: InstanceGraph, plan: Plan, repeat: int = 5) -> np.ndarray:
    """Seconds of each batch of `plan`: the least of `repeat` runs, less that of a run of no batch.

    Every batch reads what the run before it left in the arenas, so the values are those of the whole minibatch.

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
    """
    model.execute(graph, plan).synchronize()
    least = np.full(len(plan.steps) + 1, np.inf)
    parts = [_part(plan, batch, batch + 1) for batch in range(len(plan.steps))]
    parts.append(_part(plan, 0, 0))
    for _ in range(repeat):
        for number, part in enumerate(parts):
            begin = perf_counter()
            model.execute(graph, part).synchronize()
            least[number] = min(least[number], perf_counter() - begin)
    seconds: np.ndarray = np.maximum(least[:-1] - least[-1], 0.0)
    return seconds


def _part(plan: Plan, begin: int, end: int) -> Plan:
    """`plan` with the steps from `begin` to `end` alone."""
    changes: dict[str, Any] = {"steps": np.ascontiguousarray(plan.steps[begin:end])}
    if isinstance(plan, UnfusedPlan):
        changes["copy_ptr"] = plan.copy_ptr[begin : end + 1]
    return replace(plan, **changes)
