"""``edbatch tune``: search faster kernels for a workload on a device, and keep what is verified."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from edbatch_tvm.batching import policy_names
from edbatch_tvm.cli.options import new_file, not_negative, positive
from edbatch_tvm.cli.output import print_pairs, tuning_bar, write_json
from edbatch_tvm.models import WORKLOADS

TRIALS = 256


def register(verbs: Any) -> None:
    """Add the verb to `verbs`."""
    summary = "Tune the kernels of a workload for a device, on the batch sizes of its data."
    parser: argparse.ArgumentParser = verbs.add_parser("tune", help=summary, description=summary)
    parser.set_defaults(function=tune)
    add = parser.add_argument
    add("workload", metavar="WORKLOAD", choices=WORKLOADS, help=", ".join(WORKLOADS))
    add("--hidden", type=positive, default=128, metavar="H", help="hidden and embedding size (%(default)s)")
    add("--target", default="llvm", help="what to compile for: llvm, cuda, or a TVM target as JSON (%(default)s)")
    add(
        "--trials",
        type=positive,
        default=TRIALS,
        metavar="N",
        help="candidates to time, about, those of earlier runs included (%(default)s)",
    )
    add("--data", type=Path, metavar="PATH", help="instances whose batch sizes to tune for; without it generated ones")
    add("--database", type=Path, metavar="DIR", help="folder of the records (the one in the package)")
    add("--batch-size", type=positive, default=64, metavar="N", help="instances of a minibatch (%(default)s)")
    add("--minibatches", type=positive, metavar="N", help="at most N minibatches (all of the file, or 4 generated)")
    add(
        "--policy",
        default="auto",
        metavar="NAME|FILE",
        help=f"batching policy: {', '.join(policy_names())}, or a policy file (%(default)s)",
    )
    add("--tracker", metavar="HOST:PORT", help="measure on a device of this TVM RPC tracker instead of here")
    add("--rpc-key", default="", metavar="KEY", help="the key that the device's server was started with")
    add("--seed", type=not_negative, default=0, metavar="N", help="of weights, instances and searches (%(default)s)")
    add("--json", type=new_file, metavar="FILE", help="write the figures as JSON; - for standard output")
    add("--debug", action="store_true", help="show where an error comes from")


def tune(arguments: argparse.Namespace) -> None:
    """Run the verb."""
    from edbatch_tvm.tuning.model.tune_workload import TuneOptions, tune_workload

    options = TuneOptions(**{field.name: getattr(arguments, field.name) for field in fields(TuneOptions)})
    with tuning_bar(options.trials) as show:
        report = tune_workload(options, show)
    if str(arguments.json) != "-":
        print_pairs(report.rows())
        sys.stdout.flush()
    write_json(arguments.json, report.as_json())
