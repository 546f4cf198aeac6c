"""``edbatch bench memory``: what memory plans save, in cells and across graphs."""

from __future__ import annotations

import argparse
from typing import Any

from edbatch_tvm.cli.options import new_file, positive
from edbatch_tvm.cli.output import track, write_json
from edbatch_tvm.models import WORKLOADS

STATIC_HEAD = ("cell", "hidden", "batch", "gathers", "published", "bytes gathered", "kernels", "planned", "fused")
WORKLOAD_HEAD = (
    "workload",
    "hidden",
    "form",
    "plan",
    "batches",
    "kernels",
    "gathered",
    "by index",
    "operands c/b/i",
    "time",
)


def register(parts: Any) -> None:
    """Add the part to the verb ``bench``."""
    summary = "Compare memory plans: declaration order, planned in cells, planned across the graph, fused."
    parser: argparse.ArgumentParser = parts.add_parser("memory", help=summary, description=summary)
    parser.set_defaults(function=bench_memory)
    add = parser.add_argument
    names = ", ".join(WORKLOADS)
    add("--workloads", nargs="*", choices=WORKLOADS, default=["treelstm", "lattice-lstm"], metavar="NAME", help=names)
    add("--hidden", type=positive, nargs="+", default=[64], metavar="H", help="hidden sizes (64)")
    add("--static-batches", type=positive, nargs="*", default=[8, 64], metavar="N", help="of the static cells (8 64)")
    add("--batch-size", type=positive, default=64, metavar="N", help="instances of a minibatch (%(default)s)")
    add("--minibatches", type=positive, default=1, metavar="N", help="of each workload (%(default)s)")
    add("--repeat", type=positive, default=10, metavar="R", help="runs whose median counts (%(default)s)")
    add("--json", type=new_file, metavar="FILE", help="write the figures as JSON; - for standard output")
    add("--debug", action="store_true", help="show where an error comes from")


def bench_memory(arguments: argparse.Namespace) -> None:
    """Run the part ``memory``."""
    from edbatch_tvm.benchmarking.ablation import static_rows, workload_rows

    static, workloads = [], []
    for hidden in track(arguments.hidden, "static cells"):
        if arguments.static_batches:
            static += list(static_rows(hidden, tuple(arguments.static_batches), arguments.repeat))
    for name in track(arguments.workloads, "workloads"):
        for hidden in arguments.hidden:
            rows = workload_rows(name, hidden, arguments.batch_size, arguments.minibatches, arguments.repeat)
            workloads += list(rows)
    if str(arguments.json) != "-":
        _print_table(STATIC_HEAD, [_static(row) for row in static])
        print()
        _print_table(WORKLOAD_HEAD, [_workload(row) for row in workloads])
        print("\ntimes are relative to the order of declaration (the first form of each)")
    figures = {"static": [row.as_json() for row in static], "workloads": [row.as_json() for row in workloads]}
    write_json(arguments.json, figures)


def _static(row: Any) -> tuple[str, ...]:
    return (
        row.cell,
        str(row.hidden),
        str(row.batch),
        f"{row.gathers[0]} -> {row.gathers[1]}",
        f"{row.published[0]} -> {row.published[1]}",
        f"{row.gathered_bytes[0]} -> {row.gathered_bytes[1]}",
        " -> ".join(map(str, row.kernels)),
        f"{row.planned_time:.2f}",
        f"{row.fused_time:.2f}",
    )


def _workload(row: Any) -> tuple[str, ...]:
    return (
        row.workload,
        str(row.hidden),
        row.form,
        row.plan,
        str(row.batches),
        str(row.kernels),
        f"{row.bytes_gathered / 1e6:.1f} MB",
        f"{row.bytes_indexed / 1e6:.1f} MB",
        f"{row.contiguous}/{row.broadcast}/{row.indexed}",
        f"{row.time:.3f}",
    )


def _print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    if not rows:
        return
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
