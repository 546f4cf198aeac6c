"""Text form of plans: the schedule with the nodes of a batch in the order of their rows, and where its results begin.

::

    plan order
    schedule nodes=4 batches=2 types=0:leaf,1:add
    0: 2 0-1 @ 1 4
    1: 3 @ 7

Nodes 2, 0, 1 fill rows 1 to 3 with their output 0 and rows 4 to 6 with their output 1. Everything else in a plan
follows from this and the graph, so a text cannot describe a plan that reads outside the arenas.
"""

from __future__ import annotations

import re

import numpy as np

from edbatch_tvm.batching.check_schedule import check_schedule
from edbatch_tvm.batching.schedule import Schedule, parse_schedule
from edbatch_tvm.errors import PlanError, PolicyError
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.memory.layout import Layout, by_batch, signature_of
from edbatch_tvm.memory.native_or_numpy_planner import select_planner
from edbatch_tvm.memory.plan import PLANS, Plan, plan_of_layout
from edbatch_tvm.memory.plan_with_copies import UnfusedPlan, unfuse
from edbatch_tvm.memory.synthetic_signature import with_signature

_FIRST = re.compile(rf"plan ({'|'.join(PLANS)})( unfused)?")
_BATCH = re.compile(r"(.*\S) @((?: \d{1,10})*)")


def format_plan(plan: Plan) -> str:
    """The text form of `plan`."""
    schedule = plan.schedule
    ends = schedule.batch_ptr
    stride = len(plan.value_row) // max(1, schedule.num_nodes)
    rows = plan.value_row.reshape(-1, stride)[plan.order[ends[:-1]]] if len(schedule) else np.empty((0, 0), np.int32)
    ordered = Schedule(plan.order, ends, schedule.batch_type, schedule.type_label, schedule.type_names)
    first, *batches = str(ordered).splitlines()
    unfused = " unfused" if isinstance(plan, UnfusedPlan) else ""
    lines = [f"plan {plan.name}{unfused}", first]
    for line, base in zip(batches, rows.tolist(), strict=True):
        lines.append(f"{line} @ {' '.join(str(row) for row in base if row)}")  # row 0 is nobody's result
    return "\n".join(lines)


def parse_plan(text: str, graph: InstanceGraph) -> Plan:
    """The plan that :func:`format_plan` printed as `text`.

    Parameters
    ----------
    text : str
    graph : InstanceGraph
        The graph that the plan is for.

    Raises
    ------
    PlanError
        If the text is not of the form, or is no plan of `graph`; names the line or the batch.
    """
    graph = with_signature(graph)
    lines = text.strip().splitlines()
    first = _FIRST.fullmatch(lines[0].strip()) if lines else None
    if first is None:
        raise PlanError("text that is no plan", f"a first line 'plan NAME', NAME one of {', '.join(PLANS)}")
    bases: list[list[int]] = []
    for number, line in enumerate(lines[2:], 2):
        match = _BATCH.fullmatch(line.strip())
        if match is None:
            raise PlanError(f"line {number + 1}: {line.strip()[:60]!r}", "'TYPE: NODE FIRST-LAST ... @ ROW ROW ...'")
        lines[number] = match[1]
        bases.append([int(row) for row in match[2].split()])
    try:
        ordered = parse_schedule("\n".join(["", *lines[1:]]))
        schedule = _schedule(graph, ordered)
    except PolicyError as error:
        raise PlanError(error.given, error.expected, error.hint) from None
    layout = Layout(ordered.order, _bases(graph, schedule, bases), by_batch(graph, schedule).arena_rows)
    _check_rows(graph, schedule, layout)
    planner = select_planner(graph)
    plan = plan_of_layout(first[1], graph, schedule, layout, planner.fill(graph, schedule, layout))
    return unfuse(plan, signature_of(graph)) if first[2] else plan


def _schedule(graph: InstanceGraph, ordered: Schedule) -> Schedule:
    """The schedule itself, in which the nodes of a batch ascend."""
    if ordered.type_names != graph.type_names:
        raise PlanError(f"a plan of the cells {', '.join(ordered.type_names)}", f"{', '.join(graph.type_names)}")
    batches = [(int(t), ordered.nodes(batch).tolist()) for batch, t in enumerate(ordered.batch_type)]
    schedule = Schedule.from_batches(graph, batches)
    check_schedule(graph, schedule)
    return schedule


def _bases(graph: InstanceGraph, schedule: Schedule, given: list[list[int]]) -> np.ndarray:
    """First rows as an array of shape [batches, stride]."""
    signature = signature_of(graph)
    bases = np.zeros((len(schedule), signature.stride), np.int32)
    for batch, (type_id, rows) in enumerate(zip(schedule.batch_type.tolist(), given, strict=True)):
        outputs = len(signature[type_id].outputs)
        if len(rows) != outputs or any(row > np.iinfo(np.int32).max for row in rows):
            raise PlanError(f"batch {batch} begins at rows {rows}", f"one row for each of its {outputs} outputs")
        bases[batch, :outputs] = rows
    return bases


def _check_rows(graph: InstanceGraph, schedule: Schedule, layout: Layout) -> None:
    """Check that the results of all batches fill the arenas behind the external rows, none on top of another."""
    signature = signature_of(graph)
    sizes = np.diff(schedule.batch_ptr)
    arena_of = signature.output_arena[schedule.batch_type]
    for arena, end in enumerate(layout.arena_rows):
        batch, slot = np.nonzero(arena_of == arena)
        base, size = layout.base[batch, slot].astype(np.int64), sizes[batch]
        order = np.argsort(base)
        free = 1 + (len(graph.external_data[arena]) if graph.external_data else 0)
        wanted = np.append(free, free + np.cumsum(size[order]))
        wrong = base[order] != wanted[:-1]
        if wrong.any():
            at = order[np.argmax(wrong)]
            raise PlanError(
                f"results of batch {batch[at]} begin at row {base[at]} of the arena of {signature.value_specs[arena]}",
                f"rows {free} to {end - 1}, each written once",
            )
