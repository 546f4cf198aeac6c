"""``edbatch run``: run a workload, say how fast and, with ``--check``, how exactly."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edbatch_tvm.atomic_file import write_text
from edbatch_tvm.batching import policy_names
from edbatch_tvm.batching.search import WIDTH
from edbatch_tvm.cli.options import add_hidden, add_verb, hidden_size, new_file, not_negative, positive
from edbatch_tvm.cli.output import learning_bar, print_pairs, search_bar, track, write_json

if TYPE_CHECKING:
    from edbatch_tvm.benchmarking.from_raw import FromRawReport
    from edbatch_tvm.benchmarking.measure import Prepared, RunReport


def register(verbs: Any) -> None:
    """Add the verb to `verbs`."""
    parser = add_verb(verbs, "run", "Run a workload and report figures.", run)
    add = parser.add_argument
    add("--data", type=Path, metavar="PATH", help="instances to run; without it they are generated")
    add("--learn-data", type=Path, metavar="PATH", help="instances to find a policy on; without it they are generated")
    add_hidden(parser, 128, "hidden and embedding size")
    add("--minibatches", type=positive, metavar="N", help="at most N minibatches (all of the file, or 4 generated)")
    add(
        "--repeat",
        type=not_negative,
        default=0,
        metavar="R",
        help="median of R runs of each minibatch, after one untimed",
    )
    add(
        "--policy",
        default="auto",
        metavar="NAME|FILE",
        help=f"batching policy: {', '.join(policy_names())}, or a policy file; fsm learns one first (%(default)s)",
    )
    add("--width", type=positive, default=WIDTH, metavar="W", help="beam of the policies search and best (%(default)s)")
    add(
        "--plan",
        default="auto",
        metavar="PLAN",
        help="memory plan: batch, order, pq or auto (%(default)s)",
    )
    add(
        "--unfused",
        dest="fused",
        action="store_false",
        help="with --granularity op: separate kernels copy operands that are not contiguous, as other systems do",
    )
    add("--target", default="llvm", help="what to compile for: llvm, cuda or cuda-emulated (%(default)s)")
    add(
        "--dtype",
        default="float32",
        help="float64 for everything, on CPUs; a shorter type for products alone, on GPUs (%(default)s)",
    )
    add("--emit-source", type=Path, metavar="DIR", help="write the CUDA source of the kernels there, and do no more")
    add("--save", type=new_file, metavar="FILE", help="write the compiled model, weights and policy")
    add("--load", type=Path, metavar="FILE", help="a saved model of these cells and sizes, instead of compiling")
    add(
        "--database",
        type=Path,
        metavar="DIR",
        help="tuning records to use, or none (those of the package for this very CPU, if there are any)",
    )
    add("--check", action="store_true", help="compare with the float64 reference; wrong results are an error")
    add(
        "--from-raw",
        action="store_true",
        help="time trees, sentences or lattices as Python objects to results instead: built by the builder and from"
        " arrays, each minibatch as if seen for the first time; medians over R turns (5)",
    )
    add("--dump", type=Path, metavar="DIR", help="write graph and schedule of each minibatch as text")


def run(arguments: argparse.Namespace) -> None:
    """Run the verb."""
    from edbatch_tvm.benchmarking import measure

    arguments.hidden = hidden_size(arguments)
    if arguments.emit_source is not None:
        _emit_source(arguments)
        return
    options = measure.RunOptions(**{field.name: getattr(arguments, field.name) for field in fields(measure.RunOptions)})
    with search_bar() as searching:
        with learning_bar() as show:
            prepared = measure.prepare(options, show, searching)
        if arguments.from_raw:
            _from_raw(prepared, arguments)
            return
        report, comparison = measure.measure(prepared, track)
    if str(arguments.json) != "-":
        print_pairs(table(report))
        sys.stdout.flush()
    write_json(arguments.json, report.as_json())
    if comparison is not None:
        comparison.require(options.dtype)


def _from_raw(prepared: Prepared, arguments: argparse.Namespace) -> None:
    """Time everything from raw items on."""
    from edbatch_tvm.benchmarking.from_raw import measure_from_raw

    report = measure_from_raw(prepared, track)
    if str(arguments.json) != "-":
        print_pairs(from_raw_table(report))
    write_json(arguments.json, report.as_json())


def from_raw_table(report: FromRawReport) -> list[tuple[str, str]]:
    """The figures of a run from raw items for a reader."""
    rows = [
        ("workload", f"{report.workload}, hidden {report.hidden}"),
        (
            "data",
            f"{report.data}: {report.instances} instances, {report.nodes} nodes, {report.minibatches} minibatches,"
            f" medians over {report.turns} turns of {'processor' if report.processor_time else 'wall-clock'} time",
        ),
    ]
    for name, seconds in report.seconds.items():
        stages = ", ".join(f"{stage} {seconds[stage] * 1e3:.2f}" for stage in seconds if stage != "total")
        rows.append((f"ms, {name}", f"{seconds['total'] * 1e3:.2f} ({stages})"))
    microseconds = ", ".join(f"{name} {value:.3f}" for name, value in report.build_microseconds.items())
    rows.append(("us a node", f"{microseconds}: build and first merge"))
    if report.file_nodes_per_second:
        speeds = ", ".join(f"{name} {value / 1e6:.2f}" for name, value in report.file_nodes_per_second.items())
        rows.append(("file to instances", f"{speeds} million nodes/s"))
    return rows


def _emit_source(arguments: argparse.Namespace) -> None:
    """Write the CUDA source of a workload's kernels; needs no GPU."""
    from edbatch_tvm.compiler import emit_source
    from edbatch_tvm.models import get_workload

    sources = emit_source(
        get_workload(arguments.workload).cells(arguments.hidden), arguments.target, dtype=arguments.dtype
    )
    folder: Path = arguments.emit_source
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        write_text(folder / f"{name}.cu", source)
    print_pairs([("source", f"{len(sources)} kernels in {folder}")])


def table(report: RunReport) -> list[tuple[str, str]]:
    """The figures of a run for a reader."""
    seconds, bound = report.seconds, report.lower_bound
    form = "" if report.granularity == "cell" else ", graphs of ops" if report.fused else ", graphs of ops, unfused"
    rows = [
        ("workload", f"{report.workload}, hidden {report.hidden}, {report.dtype}, {report.target}{form}"),
        (
            "data",
            f"{report.data}: {report.instances} instances, {report.nodes} nodes, {report.minibatches} minibatches",
        ),
        ("policy", report.policy),
        ("batches", f"{report.batches}, {report.batches / bound:.3f} x the lower bound {bound}"),
    ]
    if report.learn_data is not None:
        rows.append(("found on", f"{report.learn_data}, in {report.learn_seconds:.2f} s"))
    if report.policy_states:
        misses = f"{report.policy_misses} of {report.policy_steps} steps"
        rows.append(("state machine", f"{report.policy_states} states, unknown ones met in {misses}"))
    stages = ", ".join(
        f"{name} {getattr(seconds, name) * 1e3:.2f}" for name in ("build", "schedule", "plan", "execute")
    )
    operands = ", ".join(f"{count} {kind}" for kind, count in report.operands.items())
    moved = f"{report.bytes_indexed / 1e6:.1f} MB read by index, {report.bytes_gathered / 1e6:.1f} MB gathered"
    rows += [
        ("instances/s", f"{report.instances_per_second:.0f}"),
        (
            "milliseconds",
            f"{seconds.total * 1e3:.2f} ({stages}), plan {report.plan}; compilation {report.compile_seconds:.1f} s",
        ),
        ("GFLOP/s", f"{report.gflops:.1f} while executing; this machine's matrix product {report.peak_gflops:.1f}"),
        ("operands", f"{operands}, {report.lookups} lookups; {moved}"),
    ]
    if report.max_relative_error is not None:
        rows.append(("relative error", f"{report.max_relative_error:.2e} (largest value {report.largest_value:.3g})"))
    return rows
