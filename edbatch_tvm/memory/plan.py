"""Memory plans: where each value lies, and how each batch reads its operands.

========= ===================================================================================================
``batch`` rows by batch, in schedule order: whether operands are contiguous is luck
``order`` nodes ordered within each batch; see :mod:`edbatch_tvm.memory.order_plan`
``pq``    a PQ tree over the minibatch, kept for graphs that repeat; see :mod:`edbatch_tvm.memory.pq_plan`
========= ===================================================================================================

In every plan the results of a batch are contiguous. Row 0 of every arena is the zero state; external rows come next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edbatch_tvm.argument_checks import require_choice
from edbatch_tvm.batching.check_schedule import check_schedule
from edbatch_tvm.batching.graph_keys import same_structure
from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.errors import PlanError
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.graph.validate import require_checked
from edbatch_tvm.memory.layout import Layout, signature_of
from edbatch_tvm.memory.layout_cache import layout_cache, structure_key
from edbatch_tvm.memory.native_or_numpy_planner import Planner, select_planner
from edbatch_tvm.memory.plan_tables import Tables
from edbatch_tvm.memory.pq_plan import pq_layouts
from edbatch_tvm.memory.synthetic_signature import with_signature

PLANS = ("batch", "order", "pq")
"""Names of the plans, from the quickest to make to the one that indexes least."""

AUTO = "batch"
"""The plan that ``auto`` stands for; docs/memory.md has the measurement it rests on."""

_LAYOUTS = layout_cache()


@dataclass(frozen=True, eq=False)
class Plan:
    """Where the values of one scheduled graph lie.

    Attributes
    ----------
    name : str
        Which plan this is.
    graph : InstanceGraph
        The graph it was made for.
    schedule : Schedule
        The schedule it was made for.
    order : int32 array of shape [nodes]
        The nodes, batch after batch as in the schedule; within a batch in the order of their rows.
    steps : int32 array of shape [batches, columns]
        See :mod:`edbatch_tvm.memory.steps_table`.
    index : int32 array
        Rows of indexed operands, and offsets of variadic ones.
    value_row : int32 array of shape [nodes * stride]
        Row of each value in the arena of its spec.
    arena_rows : tuple of int
        Rows each arena needs.
    attribute_order : dict from type id to int array
        For a type with attributes: its nodes' attribute rows in the order of `order`.
    operand_counts : int array of shape [3]
        Operands (an operand slot of a batch counts once) that are contiguous, broadcast, indexed.
    bytes_indexed : int
        Bytes of operand rows read through the index, each row counted as often as it is read.
    lookups : int
        Index attributes of batches: rows of weight tables are read through them.
    largest_batch : int
        Nodes of the largest batch.
    largest_rows : int
        Variadic rows of the batch with the most of them.
    """

    name: str
    graph: InstanceGraph
    schedule: Schedule
    order: np.ndarray
    steps: np.ndarray
    index: np.ndarray
    value_row: np.ndarray
    arena_rows: tuple[int, ...]
    attribute_order: dict[int, np.ndarray]
    operand_counts: np.ndarray
    bytes_indexed: int
    lookups: int
    largest_batch: int
    largest_rows: int

    @property
    def operands(self) -> dict[str, int]:
        """Number of contiguous, broadcast and indexed operands, by name."""
        return dict(zip(("contiguous", "broadcast", "indexed"), map(int, self.operand_counts), strict=True))

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}={count}" for name, count in self.operands.items())
        return f"Plan({self.name!r}, steps={list(self.steps.shape)}, arena_rows={list(self.arena_rows)}, {counts})"

    def __str__(self) -> str:
        from edbatch_tvm.memory.plan_text import format_plan

        return format_plan(self)


def plan_memory(schedule: Schedule, graph: InstanceGraph | None = None, plan: str = "batch") -> Plan:
    """Rows for the values of a graph as `schedule` runs it.

    Parameters
    ----------
    schedule : Schedule
        A valid schedule of `graph`; it is checked unless :func:`edbatch_tvm.schedule` made it for this structure.
    graph : InstanceGraph, optional
        Default: the graph that the schedule was made for. The values of a bare graph count as one element each.
    plan : {"auto", "batch", "order", "pq"}
        ``order`` never has more indexed operands nor more indexed bytes than ``batch``, nor ``pq`` than ``order``:
        a layout is taken only if it is no worse in both.

    Raises
    ------
    PlanError
        If there is no such plan, or no graph that fits the schedule.
    GraphError
        If the graph is not well formed.
    PolicyError
        If the schedule does not fit the graph.

    Examples
    --------
    >>> from edbatch_tvm.batching import schedule
    >>> graph = InstanceGraph.from_arrays([0, 0, 1], [0, 0, 0, 2], [0, 1])
    >>> batches, _ = schedule(graph, "depth")
    >>> plan_memory(batches).operands
    {'contiguous': 2, 'broadcast': 0, 'indexed': 0}
    """
    name = resolve_plan(plan)
    if not isinstance(schedule, Schedule):
        raise PlanError(f"a {type(schedule).__name__}", "a Schedule")
    graph = graph if graph is not None else schedule.graph
    if graph is None:
        raise PlanError("a schedule without its graph", "the graph it is for", "plan_memory(schedule, graph)")
    require_checked(graph)
    if graph.num_nodes != schedule.num_nodes:
        raise PlanError(f"a graph of {graph.num_nodes} nodes", f"the {schedule.num_nodes} nodes of the schedule")
    if not (schedule.checked and same_structure(graph, schedule.graph)):
        check_schedule(graph, schedule)
    graph = with_signature(graph)
    planner = select_planner(graph)
    if name == "batch":
        return plan_of_layout(name, graph, schedule, *planner.fill_by_batch(graph, schedule))
    if name == "order":
        return plan_of_layout(name, graph, schedule, *_order(planner, graph, schedule))
    key = structure_key(graph, schedule)
    known = _LAYOUTS.get(key)
    if known is not None:
        return plan_of_layout(name, graph, schedule, known, planner.fill(graph, schedule, known))
    layout, tables = _order(planner, graph, schedule)
    for other in pq_layouts(graph, schedule):
        other_tables = planner.fill(graph, schedule, other)
        if no_worse(other_tables, tables):
            layout, tables = other, other_tables
    _LAYOUTS.put(key, layout)
    return plan_of_layout(name, graph, schedule, layout, tables)


def resolve_plan(name: str) -> str:
    """The plan that `name` stands for.

    Raises
    ------
    PlanError
        If it stands for none.
    """
    if isinstance(name, str) and name == "auto":
        return AUTO
    require_choice("plan", name, ("auto", *PLANS), PlanError)
    return name


def _order(planner: Planner, graph: InstanceGraph, schedule: Schedule) -> tuple[Layout, Tables]:
    """The layout of ``order``, or that of ``batch`` where it is worse in either way."""
    by_batch, layout = planner.by_batch(graph, schedule), planner.order(graph, schedule)
    tables = planner.fill(graph, schedule, layout)
    if not planner.indexes_no_others(graph, schedule, tables, by_batch):
        other = planner.fill(graph, schedule, by_batch)
        if not no_worse(tables, other):
            return by_batch, other
    return layout, tables


def no_worse(one: Tables, other: Tables) -> bool:
    """Whether `one` has at most as many indexed operands and indexed bytes as `other`."""
    return bool(one.operand_counts[2] <= other.operand_counts[2]) and one.bytes_indexed <= other.bytes_indexed


def plan_of_layout(name: str, graph: InstanceGraph, schedule: Schedule, layout: Layout, tables: Tables) -> Plan:
    """The plan of a layout and the tables that follow from it."""
    attribute_order = {}
    done = 0
    for type_id, (cell, count) in enumerate(zip(signature_of(graph), graph.type_count.tolist(), strict=True)):
        if cell.attributes and count:
            attribute_order[type_id] = tables.attribute_row[done : done + count]
        done += count
    return Plan(
        name,
        graph,
        schedule,
        layout.order,
        tables.steps,
        tables.index,
        tables.value_row,
        layout.arena_rows,
        attribute_order,
        tables.operand_counts,
        tables.bytes_indexed,
        tables.lookups,
        tables.largest_batch,
        tables.largest_rows,
    )
