"""A cost table measured on a model: seconds of a batch by cell and size, so that schedules can be chosen by time."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np

from edbatch_tvm.batching.cost_model import CostTable, calibrate
from edbatch_tvm.graph import ZERO, CellSignature, InstanceGraph, validate
from edbatch_tvm.memory import Plan
from edbatch_tvm.runtime.model import Model

VARIADIC_ROWS = 2
"""Rows of each variadic operand in the batches that are measured."""


def calibrate_model(model: Model, sizes: Sequence[int] = (1, 4, 16, 64, 256, 1024), repeat: int = 5) -> CostTable:
    """Measure what a batch of each cell costs on this machine.

    Parameters
    ----------
    model : Model
    sizes : sequence of int
        Nodes of the batches that are measured; other sizes are interpolated.
    repeat : int
        Runs of each, of which the median counts.

    Returns
    -------
    CostTable
        For the option ``costs`` of ``SearchPolicy``, ``best_policy`` and ``select_policy``.
    """
    batches: dict[tuple[str, int], tuple[InstanceGraph, Plan]] = {}

    def measure(name: str, nodes: int) -> float:
        if (name, nodes) not in batches:
            graph = _one_batch(model, name, nodes)
            schedule, _ = model.schedule(graph)
            batches[name, nodes] = graph, model.plan(graph, schedule)
        graph, plan = batches[name, nodes]
        begin = perf_counter()
        model.execute(graph, plan)
        return perf_counter() - begin

    return calibrate(measure, model.signature.names, sizes, repeat)


def _one_batch(model: Model, name: str, nodes: int) -> InstanceGraph:
    """A graph of `nodes` calls of one cell on zero states: one batch."""
    cell: CellSignature = model.signature[name]
    type_id = model.signature.type_id(name)
    arity = cell.fixed_arity + VARIADIC_ROWS * cell.variadic_count
    graph = InstanceGraph(
        np.full(nodes, type_id, np.int16),
        (arity * np.arange(nodes + 1)).astype(np.int32),
        np.full(arity * nodes, ZERO, np.int32),
        model.signature,
        attributes={(type_id, a.name): np.zeros((nodes, *a.spec.shape), a.spec.dtype) for a in cell.attributes},
    )
    validate(graph)
    return graph
