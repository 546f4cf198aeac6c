"""What batching gives, on generated instances of three workloads: ``make demo``.

Every row is compiled, learned, run and checked on this machine, in about half a minute.
"""

from __future__ import annotations

import sys

from edbatch_tvm.batching import schedule
from edbatch_tvm.benchmarking.measure import RunOptions, RunReport, measure, prepare, unbatched_seconds
from edbatch_tvm.checking.comparison import Comparison
from edbatch_tvm.errors import EdbatchError
from edbatch_tvm.graph import InstanceGraph, merge

NAMES = ("treelstm", "bilstm-tagger", "lattice-lstm")
HIDDEN = 128
BATCH_SIZE = 64
MINIBATCHES = 2
UNBATCHED = 16
"""Instances that are run one node at a time."""

COLUMNS = (
    ("workload", 14),
    ("instances/s", 12),
    ("unbatched", 10),
    ("faster", 7),
    ("depth", 6),
    ("agenda", 7),
    ("fsm", 5),
    ("bound", 6),
    ("GFLOP/s", 8),
    ("relative error", 15),
)


def row(name: str) -> tuple[list[str], Comparison]:
    """One row of the table, and the comparison with the reference."""
    options = RunOptions(name, hidden=HIDDEN, minibatches=MINIBATCHES, repeat=3, policy="fsm", check=True)
    prepared = prepare(options)
    report, comparison = measure(prepared)
    assert comparison is not None
    alone = [instance for minibatch in prepared.minibatches for instance in minibatch][:UNBATCHED]
    unbatched = len(alone) / unbatched_seconds(prepared.model, alone)
    return [
        name,
        f"{report.instances_per_second:.0f}",
        f"{unbatched:.0f}",
        f"{report.instances_per_second / unbatched:.1f} x",
        str(batches(prepared.minibatches, "depth")),
        str(batches(prepared.minibatches, "agenda")),
        str(report.batches),
        str(report.lower_bound),
        f"{report.gflops:.0f}",
        error_text(report),
    ], comparison


def batches(minibatches: list[list[InstanceGraph]], policy: str) -> int:
    """Batches of all minibatches by `policy`."""
    return sum(len(schedule(merge(instances), policy)[0]) for instances in minibatches)


def error_text(report: RunReport) -> str:
    """The error of a report, as text."""
    return f"{report.max_relative_error:.1e}"


def main() -> int:
    """Print the table; the exit code is 0 if all results are right."""
    print(
        f"{MINIBATCHES} minibatches of {BATCH_SIZE} generated instances, hidden size {HIDDEN}, float32, on this CPU.\n"
        "  instances/s       batched by a learned state machine (fsm), from graphs to results\n"
        "  unbatched         the same kernels on one node at a time\n"
        "  depth agenda fsm  number of batches by these policies; no schedule has fewer than the bound\n"
        "  relative error    against a plain float64 reference\n"
    )
    print(line([name for name, _ in COLUMNS]))
    failed = False
    for name in NAMES:
        cells, comparison = row(name)
        print(line(cells), flush=True)
        try:
            comparison.require()
        except EdbatchError as error:
            print(f"  {error}", file=sys.stderr)
            failed = True
    return int(failed)


def line(cells: list[str]) -> str:
    """One line of the table: the first column to the left, numbers to the right."""
    widths = [width for _, width in COLUMNS]
    return "".join(
        [cells[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))]
    )


if __name__ == "__main__":
    sys.exit(main())
