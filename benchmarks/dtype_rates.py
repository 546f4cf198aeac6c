"""Kernels in other dtypes over those in float32: ``python -m benchmarks.dtype_rates --data-root DATA``.

For each workload the floating-point operations of the products of a minibatch over the time of its kernels, in float32,
in float64 and with values and weights stored in 16 bits. The program is called with arguments that are ready. One
thread, processor time; dtypes run in turns, twice each, of which the second run counts: it finds its own data in the
caches. The share is the median over the turns of the rate over that of float32.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import thread_time

import edbatch_tvm as eb
from edbatch_tvm.flops import multiply_adds_of_graph
from edbatch_tvm.models import get_workload
from edbatch_tvm.models.data import load_minibatches
from edbatch_tvm.peers.compare import data_file

OPTIONS: dict[str, dict[str, str]] = {
    "float32": {},
    "float64": {"dtype": "float64"},
    "bfloat16": {"storage": "bfloat16"},
    "float16": {"storage": "float16"},
}


def measure(
    name: str, data_root: Path | None, hidden: int, batch_size: int, repeat: int, dtypes: Sequence[str]
) -> list[tuple[float, float]]:
    """GFLOP/s of each dtype, and its share of float32's, which is the first."""
    workload = get_workload(name)
    cells = workload.cells(hidden)
    found: list[list[float]] = [[] for _ in dtypes]
    with ExitStack() as stack:
        runs = []
        for dtype in dtypes:
            model = eb.compile(cells, workload.weights(hidden), policy="auto", **OPTIONS[dtype])
            (instances,) = load_minibatches(workload, model.cells, data_file(name, data_root), batch_size, 1, 0)
            graph = model.merge(instances)
            plan = model.plan(graph, model.schedule(graph)[0])
            run = stack.enter_context(model.executor.parts(graph, plan))
            runs.append((run, len(plan.steps), 2e-9 * multiply_adds_of_graph(cells, graph)))
        for _ in range(repeat):
            for (run, steps, flops), own in zip(runs, found, strict=True):
                run(0, steps)
                begin = thread_time()
                run(0, steps)
                own.append(flops / (thread_time() - begin))
    return [
        (statistics.median(own), statistics.median(one / single for one, single in zip(own, found[0], strict=True)))
        for own in found
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Print one row for each workload and hidden size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="workload", default=["treelstm", "lattice-lstm"])
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=25)
    given = parser.parse_args(argv)
    eb.set_num_threads(1)
    dtypes = list(OPTIONS)
    print("| workload | H |" + "".join(f" {dtype}, GFLOP/s | of float32 |" for dtype in dtypes))
    print("|---|--:|" + "--:|" * (2 * len(dtypes)))
    for name in given.workloads:
        for hidden in given.hidden:
            figures = measure(name, given.data_root, hidden, given.batch_size, given.repeat, dtypes)
            columns = "".join(f" {rate:.1f} | {share:.3f} |" for rate, share in figures)
            print(f"| {name} | {hidden} |{columns}", flush=True)


if __name__ == "__main__":
    main()
