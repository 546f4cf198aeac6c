"""``edbatch bench costs``: what batches cost here, and whether fewest batches is fastest."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from edbatch_tvm.cli.options import add_hidden, hidden_size, new_file, not_negative, positive
from edbatch_tvm.cli.output import write_json
from edbatch_tvm.models import WORKLOADS


def register(parts: Any) -> None:
    """Add the part to the verb ``bench``."""
    summary = "Measure the time of a batch by cell and size, and compare fewest batches with least time."
    parser: argparse.ArgumentParser = parts.add_parser("costs", help=summary, description=summary)
    parser.set_defaults(function=bench_costs)
    add = parser.add_argument
    add("workload", metavar="WORKLOAD", choices=WORKLOADS, help=", ".join(WORKLOADS))
    add_hidden(parser, 128, "hidden size")
    add("--batch-size", type=positive, default=64, metavar="N", help="instances of a minibatch (%(default)s)")
    add("--minibatches", type=positive, default=2, metavar="N", help="generated, to compare on (%(default)s)")
    add("--width", type=positive, default=64, metavar="W", help="of the searches (%(default)s)")
    add("--seed", type=not_negative, default=0, metavar="N", help="of instances and weights (%(default)s)")
    add("--output", type=new_file, metavar="FILE", help="write the cost table, to be read by CostTable.load")
    add("--json", type=new_file, metavar="FILE", help="write what is printed as JSON; - for standard output")
    add("--debug", action="store_true", help="show where an error comes from")


def bench_costs(arguments: argparse.Namespace) -> None:
    """Run the part ``costs``."""
    from edbatch_tvm.batching import weigh_batches_against_time
    from edbatch_tvm.compiler import compile_model
    from edbatch_tvm.models.data import load_minibatches
    from edbatch_tvm.models.trained import find_workload
    from edbatch_tvm.runtime.calibrate import calibrate_model

    hidden = hidden_size(arguments)
    workload = find_workload(arguments.workload, arguments.checkpoint)
    model = compile_model(workload.cells(hidden), workload.weights(hidden, arguments.seed))
    costs = calibrate_model(model)
    groups = load_minibatches(
        workload, model.signature, None, arguments.batch_size, arguments.minibatches, arguments.seed
    )
    compared = weigh_batches_against_time([model.merge(group) for group in groups], costs, arguments.width)
    if str(arguments.json) != "-":
        for name, sizes in costs.as_dict().items():
            print(f"{name:<20} " + "  ".join(f"{size}: {1e6 * seconds:.0f} µs" for size, seconds in sizes.items()))
        print(compared)
    if arguments.output is not None:
        costs.save(arguments.output)
    write_json(arguments.json, {"seconds": costs.as_dict(), "trade_off": asdict(compared)})
