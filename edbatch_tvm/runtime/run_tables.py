"""What the compiled program reads to run a schedule, whoever made it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import Plan
from edbatch_tvm.memory.plan_with_copies import UnfusedPlan


@dataclass(frozen=True, eq=False)
class RunTables:
    """A planned schedule as tables.

    Attributes
    ----------
    steps, index : int32 array
        See :mod:`edbatch_tvm.memory.steps_table`.
    arena_rows : sequence of int
        Rows that each arena needs.
    largest_batch, largest_rows : int
        Nodes of the largest batch, and variadic rows of that which has most.
    type_count : int64 array
        Nodes of each type.
    attribute : callable
        Gives an attribute of the nodes of a type, by type and name, in the order of the schedule.
    planned : (InstanceGraph, Plan) or None
        What the tables are those of, where that is known; a minibatch is divided by it.
    copies, copy_ptr : int32 array or None
        Rows that are copied before each batch, where not all are read in their places.
    """

    steps: np.ndarray
    index: np.ndarray
    arena_rows: tuple[int, ...]
    largest_batch: int
    largest_rows: int
    type_count: np.ndarray
    attribute: Callable[[int, str], np.ndarray]
    planned: tuple[InstanceGraph, Plan] | None = None
    copies: np.ndarray | None = None
    copy_ptr: np.ndarray | None = None


def tables_of(graph: InstanceGraph, plan: Plan) -> RunTables:
    """The tables of a plan for a graph of its structure."""

    def attribute(type_id: int, name: str) -> np.ndarray:
        rows: np.ndarray = graph.attributes[type_id, name][plan.attribute_order[type_id]]
        return rows

    return RunTables(
        plan.steps,
        plan.index,
        plan.arena_rows,
        plan.largest_batch,
        plan.largest_rows,
        graph.type_count,
        attribute,
        (graph, plan),
        plan.copies if isinstance(plan, UnfusedPlan) else None,
        plan.copy_ptr if isinstance(plan, UnfusedPlan) else None,
    )
