"""``edbatch tune``: search faster kernels for a workload on a device, and keep what is verified."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edbatch_tvm.batching import policy_names
from edbatch_tvm.cli.options import new_file, not_negative, positive
from edbatch_tvm.cli.output import print_pairs, tuning_bar, write_json
from edbatch_tvm.models import WORKLOADS

if TYPE_CHECKING:
    from edbatch_tvm.tuning import TuneReport
    from edbatch_tvm.tuning.gpu import GpuTuneReport

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
    add("--minibatches", type=positive, metavar="N", help="at most so many (all of the file, or 4 generated ones)")
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
    from edbatch_tvm.models.tuning import TuneOptions, tune_workload
    from edbatch_tvm.tuning.gpu import GpuTuneReport

    options = TuneOptions(**{field.name: getattr(arguments, field.name) for field in fields(TuneOptions)})
    with tuning_bar(options.trials) as show:
        report = tune_workload(options, show)
    if str(arguments.json) != "-":
        print_pairs(gpu_table(report) if isinstance(report, GpuTuneReport) else table(report))
        sys.stdout.flush()
    write_json(arguments.json, report.as_json())


def gpu_table(report: GpuTuneReport) -> list[tuple[str, str]]:
    """The figures of a tuning run on a GPU for a reader."""
    rows = [("device", f"{report.device}, record in {report.database}")]
    for trial in report.trials:
        setting = f"fill {trial.machine.fill}, {trial.machine.blocks_per_unit} blocks"
        rows.append((setting, trial.failed or f"{1e3 * trial.seconds:.3f} ms"))
    gain = report.trials[0].seconds / report.best.seconds
    rows.append(("best", f"{report.best.machine}, {gain:.2f} x, relative error {report.max_relative_error:.1e}"))
    return rows


def table(report: TuneReport) -> list[tuple[str, str]]:
    """The figures of a tuning run for a reader."""
    rows = [
        ("device", f"{report.device}, records in {report.database}"),
        ("trials", f"{report.trials} in {report.seconds:.0f} s, {report.failed} failed; {report.known} known before"),
    ]
    for outcome in report.kernels:
        for gain in outcome.gains:
            times = f"{1e6 * gain.default_seconds:8.1f} -> {1e6 * gain.tuned_seconds:8.1f} µs"
            rows.append((f"{outcome.name} {gain.load}", f"{gain.gain:5.2f} x  {times}  {gain.choice}"))
    rows += [(name, f"not tuned: {reason}") for name, reason in report.untunable.items()]
    checked = report.verification
    if checked is None:
        rows.append(("verified", "no: the tuned build is for another machine"))
        return rows
    found = any(gain.choice != "default" for outcome in report.kernels for gain in outcome.gains)
    verdict = "nothing to keep" if not found else "kept" if checked.good else "slower: dropped"
    rows.append(
        (
            "verified",
            f"{1e3 * checked.default_seconds:.2f} -> {1e3 * checked.tuned_seconds:.2f} ms on fresh data, {verdict}; "
            f"relative error {checked.max_relative_error:.1e} against the {checked.against}",
        )
    )
    return rows
