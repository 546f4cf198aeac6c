"""Kernels over the multiply-add rate, all workloads: ``python -m benchmarks.kernel_rates --data-root DATA``.

For each workload and hidden size the floating-point operations of the products of a minibatch, as the cells are
written, over the time of its kernels, and that over the machine's rate of fused multiply-adds. The program is called
with arguments that are ready. One thread, processor time; kernels and the rate are measured in turns, and the share is
the median of the turns: a machine whose clock changes changes both. Kernels run twice in a turn: what measures the
rate writes 12 MB, so the first run finds caches that others have filled, and the second its own data. Workloads
without a data file are generated. ``auto`` runs ``mvrnn``, whose values are tens of kilobytes, in postorder.
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
) -> list[tuple[float, float]]:
    """GFLOP/s of the kernels and their share of the multiply-add rate, of the first run of each turn and the second."""
    workload = get_workload(name)
    cells = workload.cells(hidden)
    model = eb.compile(cells, workload.weights(hidden), policy=policy)
    (instances,) = load_minibatches(workload, model.cells, data_file(name, data_root), batch_size, 1, 0)
    graph = model.merge(instances)
    plan = model.plan(graph, model.schedule(graph)[0])
    flops = 2e-9 * multiply_adds_of_graph(cells, graph)
    found: tuple[list[float], list[float]] = [], []
    rates = []
    with model.executor.parts(graph, plan) as run:
        for _ in range(repeat):
            rates.append(fma_gflops(1, thread_time))
            for own in found:
                begin = thread_time()
                run(0, len(plan.steps))
                own.append(flops / (thread_time() - begin))
    shares = [[one / rate for one, rate in zip(own, rates, strict=True)] for own in found]
    return [(statistics.median(own), statistics.median(share)) for own, share in zip(found, shares, strict=True)]


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
    heads = (f" first, GFLOP/s, H = {hidden} | share | second | share |" for hidden in given.hidden)
    print("| workload | data |" + "".join(heads))
    print("|---|---|" + "--:|" * (4 * len(given.hidden)))
    for name in given.workloads:
        columns = []
        for hidden in given.hidden:
            figures = measure(name, given.data_root, hidden, given.batch_size, given.repeat, given.policy)
            columns += [f" {rate:.0f} | {share:.2f} |" for rate, share in figures]
        source = "generated" if data_file(name, given.data_root) is None else "file"
        print(f"| {name} | {source} |" + "".join(columns), flush=True)


if __name__ == "__main__":
    main()
