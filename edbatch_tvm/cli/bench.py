"""``edbatch bench``: measure a part of the system on all workloads."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edbatch_tvm.cli import bench_costs, bench_cpu, bench_memory, bench_training
from edbatch_tvm.cli.options import new_file, not_negative, positive
from edbatch_tvm.cli.output import track, write_json
from edbatch_tvm.errors import EdbatchError
from edbatch_tvm.models import WORKLOADS


def register(verbs: Any) -> None:
    """Add the verb to `verbs`."""
    summary = "Measure a part of the system on all workloads."
    parser = verbs.add_parser("bench", help=summary, description=summary)
    parts = parser.add_subparsers(title="parts", metavar="PART", required=True)
    summary = "Compare batching policies: batches over the lower bound, time to schedule, learning."
    batching: argparse.ArgumentParser = parts.add_parser("batching", help=summary, description=summary)
    batching.set_defaults(function=bench_batching)
    bench_memory.register(parts)
    bench_costs.register(parts)
    bench_cpu.register(parts)
    bench_training.register(parts)
    add = batching.add_argument
    add("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME", help=", ".join(WORKLOADS))
    add("--data-root", type=Path, metavar="DIR", help="folder of data files; without it instances are generated")
    add("--batch-size", type=positive, default=64, metavar="N", help="instances of a minibatch (%(default)s)")
    add("--minibatches", type=positive, default=10, metavar="N", help="measure on at most N minibatches (%(default)s)")
    add("--learn-minibatches", type=positive, default=8, metavar="N", help="learn on N other ones (%(default)s)")
    add("--seeds", type=positive, default=1, metavar="N", help="of data and learning (%(default)s)")
    add("--seed", type=not_negative, default=0, metavar="N", help="the first of them (%(default)s)")
    add("--widths", type=positive, nargs="+", default=[8, 64], metavar="W", help="beams of the search (8 64)")
    add("--json", type=new_file, metavar="FILE", help="write the figures as JSON; - for standard output")
    add("--plot", type=new_file, metavar="FILE", help="draw time against batches; needs matplotlib")
    add("--debug", action="store_true", help="show where an error comes from")


def bench_batching(arguments: argparse.Namespace) -> None:
    """Run the part ``batching``."""
    from edbatch_tvm.batching.compare_policies import compare, format_rows, plot_rows, rows_of
    from edbatch_tvm.benchmarking.train_test_split import learn_test_split

    if arguments.plot is not None and importlib.util.find_spec("matplotlib") is None:
        raise EdbatchError("--plot without matplotlib", "it installed", "pip install 'edbatch-tvm[plot]'")
    rows, sources = [], {}
    for name in track(arguments.workloads, "workloads"):
        trials = []
        for seed in range(arguments.seed, arguments.seed + arguments.seeds):
            graphs = learn_test_split(
                name,
                arguments.data_root,
                arguments.batch_size,
                arguments.learn_minibatches,
                arguments.minibatches,
                seed,
            )
            sources[name] = graphs.source
            trials += compare(graphs.learn, graphs.test, seed, sorted(arguments.widths))
        rows += rows_of(name, trials)
    if str(arguments.json) != "-":
        print(format_rows(rows))
        sys.stdout.flush()
    figures = {
        "batch_size": arguments.batch_size,
        "minibatches": arguments.minibatches,
        "learn_minibatches": arguments.learn_minibatches,
        "seeds": arguments.seeds,
        "sources": sources,
        "rows": [asdict(row) for row in rows],
    }
    write_json(arguments.json, figures)
    if arguments.plot is not None:
        plot_rows(rows, str(arguments.plot))
