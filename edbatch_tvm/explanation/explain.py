"""``edbatch_tvm.explain``: run a minibatch and find out what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edbatch_tvm.argument_checks import require_type
from edbatch_tvm.batching.batch_gaps import TypeBatches, find_batch_gaps
from edbatch_tvm.errors import CellError
from edbatch_tvm.explanation.batch_timing import batch_seconds
from edbatch_tvm.explanation.record import BatchExplanation, CellExplanation, Explanation, TrainingExplanation
from edbatch_tvm.explanation.similar_cells import Alike, alike_cells
from edbatch_tvm.explanation.training import Optimizer, run_step
from edbatch_tvm.flops import multiply_adds_of_graph
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import Plan, PQTree
from edbatch_tvm.memory.layout import row_bytes, signature_of
from edbatch_tvm.memory.operand_read_report import OperandUse, operand_read_report
from edbatch_tvm.runtime import Model, Report
from edbatch_tvm.training import TrainingModel
from relay_ext.group_ops import cell_plan


def explain(
    model: Model, instances: Sequence[InstanceGraph], repeat: int = 3, optimizer: Optimizer | None = None
) -> Explanation:
    """Run `instances` as one minibatch and say what was batched, what was not and why, how it was read, what it cost.

    Of a model that trains, it runs whole steps, for the gradients of the sum of all declared outputs, and also explains
    the backward pass: :attr:`Explanation.training`.

    Parameters
    ----------
    model : Model
    instances : sequence of InstanceGraph
    repeat : int
        Runs of the minibatch and of each single batch, of which the shortest count; 0 measures no batch.
    optimizer : callable, optional
        Of a model that trains: changes its weights, in place, by :class:`~edbatch_tvm.training.Gradients`, and returns
        None, or the rows of tables that have changed, as :meth:`Model.refresh` takes them.

    Returns
    -------
    Explanation

    Raises
    ------
    GraphError
        If there are no instances, or one is not of this model.
    CellError
        If the model is none, or does not train and there is an optimizer.

    Examples
    --------
    >>> import edbatch_tvm as eb                                          # doctest: +SKIP
    >>> print(eb.explain(model, instances))                               # doctest: +SKIP
    """
    require_type(model, Model, "a compiled Model", CellError)
    if isinstance(model, TrainingModel):
        return _explain_step(model, instances, repeat, optimizer)
    if optimizer is not None:
        raise CellError("an optimizer for a model that does not train", "none", "eb.compile(..., training=True)")
    model(instances)  # allocates and fills caches
    runs = (model.run(model.prepare(instances)) for _ in range(max(1, repeat)))  # in steps, which are timed
    result = min(runs, key=lambda run: run.report.seconds["total"])
    return _explained(model, result.report, repeat)


def _explain_step(
    model: TrainingModel, instances: Sequence[InstanceGraph], repeat: int, optimizer: Optimizer | None
) -> Explanation:
    """Both passes of the shortest of several steps."""
    run_step(model, instances, optimizer)  # compiles the backward pass, allocates and fills caches
    steps = (run_step(model, instances, optimizer) for _ in range(max(1, repeat)))
    step = min(steps, key=lambda one: one.seconds["total"])
    compiled = model.backward_model
    assert compiled is not None
    # Its batches are not timed one by one: the rows of the forward pass that they read are not kept.
    backward = _explained(compiled, step.gradients.report, 0)
    found = _explained(model, step.result.report, repeat)
    return replace(found, training=TrainingExplanation(step.seconds, step.saved_bytes, backward))


def _explained(model: Model, report: Report, repeat: int) -> Explanation:
    """What a model did in one pass."""
    graph, plan = report.graph, report.plan  # without the nodes that are equal to another one
    seconds = batch_seconds(model, graph, plan, repeat) if repeat else None
    apart = find_batch_gaps(graph, plan.schedule)
    uses = operand_read_report(graph, plan)
    alike = alike_cells(model.source) if model.source is not None else {}
    return Explanation(
        report.policy,
        plan.name,
        model.target,
        graph.num_instances,
        graph.num_nodes,
        len(plan.schedule),
        report.lower_bound,
        dict(report.seconds),
        [_cell(model, graph, plan, found, uses, alike.get(found.cell, []), seconds) for found in apart],
        _steps(plan, apart, seconds),
        uses,
        _trees(model),
        graph,
        plan,
        report.merged,
        dict(report.products),
    )


def _cell(
    model: Model,
    graph: InstanceGraph,
    plan: Plan,
    found: TypeBatches,
    uses: list[OperandUse],
    alike: list[Alike],
    seconds: np.ndarray | None,
) -> CellExplanation:
    type_id = signature_of(graph).type_id(found.cell)
    mine = [use for use in uses if use.cell == found.cell]
    how = Counter(use.how for use in mine)
    path, _, reason = model.paths[found.cell].partition(" ")
    read, written = _traffic(graph, type_id)
    time = None if seconds is None else float(seconds[plan.schedule.batch_type == type_id].sum())
    return CellExplanation(
        found.cell,
        found.nodes,
        found.batches,
        found.largest,
        found.longest_path,
        found.above_path,
        found.total("dependent"),
        found.total("waiting"),
        found.total("ready"),
        found.waited_for,
        alike,
        path,
        reason.strip("()"),
        model.kernel_names[found.cell],
        {name: how[name] for name in ("contiguous", "broadcast", "indexed")},
        dict(Counter(use.why for use in mine if use.why).most_common()),
        read,
        sum(use.bytes for use in mine if use.how == "indexed"),
        written,
        time,
        _gflops(model, graph, type_id, time),
    )


def _traffic(graph: InstanceGraph, type_id: int) -> tuple[int, int]:
    """Bytes of the operands and of the results of all nodes of a cell."""
    cell = signature_of(graph)[type_id]
    nodes = graph.nodes_of(type_id)
    values = int((graph.operand_ptr[nodes + 1] - graph.operand_ptr[nodes]).sum())
    variadic = (values - cell.fixed_arity * len(nodes)) // max(1, cell.variadic_count)
    read = sum(row_bytes(o.spec) * (variadic if o.variadic else len(nodes)) for o in cell.operands)
    return read, len(nodes) * sum(map(row_bytes, cell.outputs))


def _gflops(model: Model, graph: InstanceGraph, type_id: int, seconds: float | None) -> float | None:
    if not seconds or model.source is None:
        return None
    nodes = graph.nodes_of(type_id)
    own = InstanceGraph(
        graph.node_type[nodes],
        np.append(0, np.cumsum(np.diff(graph.operand_ptr)[nodes])).astype(np.int32),
        np.empty(0, np.int32),
        graph.signature,
    )
    try:
        operations = 2 * multiply_adds_of_graph(model.source, own)
    except CellError:  # a product whose size depends on the call
        return None
    return operations / seconds / 1e9 if operations else None


def _steps(plan: Plan, apart: list[TypeBatches], seconds: np.ndarray | None) -> list[BatchExplanation]:
    gaps = {gap.batch: gap for found in apart for gap in found.gaps}
    steps = []
    for batch, type_id in enumerate(plan.schedule.batch_type.tolist()):
        gap = gaps.get(batch)
        steps.append(
            BatchExplanation(
                batch,
                plan.schedule.type_names[type_id],
                len(plan.schedule.nodes(batch)),
                None if seconds is None else float(seconds[batch]),
                gap.previous if gap else None,
                gap.dependent if gap else 0,
                gap.waiting if gap else 0,
                gap.ready if gap else 0,
            )
        )
    return steps


def _trees(model: Model) -> dict[str, PQTree]:
    """The layouts of the operators inside the cells."""
    if model.source is None or model.granularity != "cell":
        return {}
    plans = {cell.name: cell_plan(model.source, cell.name) for cell in model.signature}
    return {name: plan.tree for name, plan in plans.items() if plan is not None and plan.tree is not None}
