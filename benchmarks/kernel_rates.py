"""Kernels over the multiply-add rate, all workloads: ``python -m benchmarks.kernel_rates --data-root DATA``.

For each workload and hidden size the floating-point operations of the products of a minibatch, as the cells are
written, over the time of its kernels, and that over the machine's rate of fused multiply-adds. The program is called
with arguments that are ready. One thread, processor time; kernels and the rate are measured in turns, and the share is
the median of the turns: a machine whose clock changes changes both. Workloads without a data file are generated.
``auto`` runs ``mvrnn``, whose values are tens of kilobytes, in postorder.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from time import thread_time

import edbatch_tvm as eb
from edbatch_tvm.benchmarking.fma_peak import fma_gflops
from edbatch_tvm.flops import multiply_adds_of_graph
from edbatch_tvm.models import WORKLOADS, get_workload
from edbatch_tvm.models.data import load_minibatches
from edbatch_tvm.peers.compare import data_file


def measure(
    name: str, data_root: Path | None, hidden: int, batch_size: int, repeat: int, policy: str
) -> tuple[float, float]:
    """GFLOP/s of the kernels, and their share of the multiply-add rate."""
    workload = get_workload(name)
    cells = workload.cells(hidden)
    model = eb.compile(cells, workload.weights(hidden), policy=policy)
    (instances,) = load_minibatches(workload, model.cells, data_file(name, data_root), batch_size, 1, 0)
    graph = model.merge(instances)
    plan = model.plan(graph, model.schedule(graph)[0])
    flops = 2e-9 * multiply_adds_of_graph(cells, graph)
    found, shares = [], []
    with model.executor.parts(graph, plan) as run:
        run(0, len(plan.steps))
        for _ in range(repeat):
            begin = thread_time()
            run(0, len(plan.steps))
            found.append(flops / (thread_time() - begin))
            shares.append(found[-1] / fma_gflops(1, thread_time))
    return statistics.median(found), statistics.median(shares)


def main(argv: Sequence[str] | None = None) -> None:
    """Print one row for each workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="workload", default=WORKLOADS)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=25)
    parser.add_argument("--policy", default="auto")
    given = parser.parse_args(argv)
    eb.set_num_threads(1)
    print("| workload | data |" + "".join(f" GFLOP/s, H = {hidden} | share |" for hidden in given.hidden))
    print("|---|---|" + "--:|" * (2 * len(given.hidden)))
    for name in given.workloads:
        columns = []
        for hidden in given.hidden:
            rate, share = measure(name, given.data_root, hidden, given.batch_size, given.repeat, given.policy)
            columns.append(f" {rate:.0f} | {share:.2f} |")
        source = "generated" if data_file(name, given.data_root) is None else "file"
        print(f"| {name} | {source} |" + "".join(columns), flush=True)


if __name__ == "__main__":
    main()
