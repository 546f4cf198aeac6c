"""``edbatch explain``: what was batched, what was not, and why, how operands are read, what it costs."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from edbatch_tvm.atomic_file import write_text
from edbatch_tvm.cli.options import add_hidden, hidden_size, new_file, not_negative, positive
from edbatch_tvm.cli.output import write_json
from edbatch_tvm.errors import EdbatchError
from edbatch_tvm.memory import PLANS
from edbatch_tvm.models import WORKLOADS
from edbatch_tvm.trainer.options import OPTIMIZERS


def register(verbs: Any) -> None:
    """Add the verb to `verbs`."""
    summary = "Run one minibatch of a workload and explain what was batched, what was not, and why."
    parser: argparse.ArgumentParser = verbs.add_parser("explain", help=summary, description=summary)
    parser.set_defaults(function=explain)
    add = parser.add_argument
    add("workload", metavar="WORKLOAD", choices=WORKLOADS, help=", ".join(WORKLOADS))
    add("--memory", action="store_true", help="the memory plan alone: every operand of every batch; nothing is run")
    add("--data", type=Path, metavar="PATH", help="instances; without it they are generated")
    add_hidden(parser, 16, "hidden size")
    add("--batch-size", type=positive, default=8, metavar="N", help="instances of the minibatch (%(default)s)")
    add("--policy", default="lookahead", metavar="NAME|FILE", help="batching policy (%(default)s)")
    add("--plan", choices=PLANS, default=PLANS[0], help="memory plan (%(default)s)")
    add(
        "--granularity",
        choices=("cell", "op"),
        default="cell",
        help="what is batched: cells, or each of their operators by itself (%(default)s)",
    )
    add(
        "--training",
        action="store_true",
        help="a training step: both passes, bytes saved, where its time goes; gradients of the sum of all outputs",
    )
    add("--optimizer", choices=tuple(OPTIMIZERS), default="adam", help="of the step: %(choices)s (%(default)s)")
    add("--seed", type=not_negative, default=0, metavar="N", help="of weights and generated instances (%(default)s)")
    add("--html", type=new_file, metavar="FILE", help="write a page: timeline, graph, arenas and PQ trees drawn")
    add("--trace", type=new_file, metavar="FILE", help="write a trace for chrome://tracing or ui.perfetto.dev")
    add("--json", type=new_file, metavar="FILE", help="write the figures as JSON; - for standard output")
    add("--debug", action="store_true", help="show where an error comes from")


def explain(arguments: argparse.Namespace) -> None:
    """Run the verb."""
    arguments.hidden = hidden_size(arguments)
    if arguments.memory:
        _explain_memory(arguments)
    else:
        _explain_run(arguments)


def _explain_run(arguments: argparse.Namespace) -> None:
    from edbatch_tvm.compiler import compile_model
    from edbatch_tvm.explanation import explain as explain_run
    from edbatch_tvm.models.data import load_minibatches
    from edbatch_tvm.models.trained import find_workload

    workload = find_workload(arguments.workload, arguments.checkpoint)
    weights: Mapping[str, Any] = workload.weights(arguments.hidden, arguments.seed)
    step = None
    if arguments.training:
        from edbatch_tvm.trainer.optimizers import Optimizer

        tables = () if workload.labelled is None else workload.labelled.tables
        optimizer = Optimizer(arguments.optimizer, OPTIMIZERS[arguments.optimizer], 0.0, weights, tables)
        weights, step = optimizer.weights, partial(optimizer.step, scale=1.0)
    model = compile_model(
        workload.cells(arguments.hidden),
        weights,
        policy=arguments.policy,
        plan=arguments.plan,
        granularity=arguments.granularity,
        training=arguments.training,
    )
    (instances,) = load_minibatches(workload, model.cells, arguments.data, arguments.batch_size, 1, arguments.seed)
    found = explain_run(model, instances, optimizer=step)
    if str(arguments.json) != "-":
        print(found)
    if arguments.html is not None:
        write_text(arguments.html, found.to_html(f"edbatch explain {arguments.workload}"))
    if arguments.trace is not None:
        write_text(arguments.trace, json.dumps(found.to_trace()))
    write_json(arguments.json, {"workload": arguments.workload, **found.as_json()})


def _explain_memory(arguments: argparse.Namespace) -> None:
    from edbatch_tvm.batching import schedule
    from edbatch_tvm.explanation.memory_drawing import memory_page
    from edbatch_tvm.graph import merge
    from edbatch_tvm.memory import plan_memory
    from edbatch_tvm.memory.operand_read_report import operand_read_report
    from edbatch_tvm.models.data import load_minibatches
    from edbatch_tvm.models.trained import find_workload
    from relay_ext.group_ops import cell_plan
    from relay_ext.signature import signature_of

    if arguments.trace is not None or arguments.granularity != "cell" or arguments.training:
        raise EdbatchError(
            "--memory with --trace, --granularity op or --training", "none of them", "leave --memory out"
        )
    workload = find_workload(arguments.workload, arguments.checkpoint)
    mod = workload.cells(arguments.hidden)
    signature = signature_of(mod)
    (instances,) = load_minibatches(workload, signature, arguments.data, arguments.batch_size, 1, arguments.seed)
    graph = merge(instances)
    batches, _ = schedule(graph, arguments.policy)
    plan = plan_memory(batches, graph, plan=arguments.plan)
    uses = operand_read_report(graph, plan)
    if str(arguments.json) != "-":
        for use in uses:
            read = f"{use.how}: {use.why}" if use.why else use.how
            print(f"{use.batch:>5}  {use.cell:<20} {use.nodes:>6} nodes  {use.operand:<12} {read}")
        counts = Counter(use.how for use in uses)
        total = ", ".join(f"{counts[how]} {how}" for how in ("contiguous", "broadcast", "indexed"))
        print(f"plan {plan.name}: {len(batches)} batches, {total}; {plan.bytes_indexed} bytes read through an index")
    if arguments.html is not None:
        plans = {cell.name: cell_plan(mod, cell.name) for cell in signature}
        trees = {name: found.tree for name, found in plans.items() if found is not None and found.tree is not None}
        page = memory_page(f"{arguments.workload}: memory", graph, plan, uses, trees)
        write_text(arguments.html, page)
    figures = {"plan": plan.name, "batches": len(batches), "operands": plan.operands, "uses": [asdict(u) for u in uses]}
    write_json(arguments.json, figures)
