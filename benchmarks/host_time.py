"""Host time of minibatches in one call of compiled code, and in steps: ``python -m benchmarks.host_time``.

Microseconds of a minibatch: of instances that are seen for the first time, in mixes that are new, and in minibatches
that came before, whose schedules and plans Python keeps. Processor time, medians, in turns, one thread. ``kernels`` is
the time of the kernels alone: of the program called with arguments that are ready.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from time import thread_time
from typing import Any

import numpy as np

import edbatch_tvm as eb
from edbatch_tvm.models import get_workload


def kernel_seconds(model: Any, instances: list[Any], repeat: int = 9) -> float:
    """Seconds of the kernels of a minibatch."""
    graph = model.merge(instances)
    plan = model.plan(graph, model.schedule(graph)[0])
    taken = []
    with model.executor.parts(graph, plan) as run:
        for _ in range(repeat):
            begin = thread_time()
            run(0, len(plan.steps))
            taken.append(thread_time() - begin)
    return min(taken)


def measure(name: str, data: str, hidden: int, batch_size: int, count: int) -> list[float]:
    """Microseconds: kernels; then in steps and in one call of new instances, new mixes and known minibatches."""
    workload = get_workload(name)
    model = eb.compile(workload.cells(hidden), workload.weights(hidden), policy="agenda")
    ways: dict[str, Any] = {"steps": lambda one: model.run(model.prepare(one)), "one call": model}
    apart = {way: workload.read(data, model.cells)[:count] for way in ways}
    count = min(count, len(apart["steps"]))  # a file may have fewer
    for way, run in ways.items():  # the first calls load and allocate
        for begin in range(0, 8 * batch_size, batch_size):
            run(apart[way][:batch_size][::-1] + apart[way][begin : begin + 1])
    kernels = [
        kernel_seconds(model, apart["steps"][k : k + batch_size])
        for k in range(0, count - batch_size + 1, max(1, count // 8))
    ]
    found = [statistics.median(kernels)]
    order = np.arange(count)
    for mixed in (False, True, False):
        if mixed:
            order = np.random.default_rng(0).permutation(count)
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for begin in range(0, count - batch_size + 1, batch_size):
            for way, run in ways.items():
                own = [apart[way][place] for place in order[begin : begin + batch_size]]
                start = thread_time()
                run(own)
                taken[way].append(thread_time() - start)
        found += [statistics.median(one) for one in taken.values()]
    return [1e6 * one for one in found]


def main(argv: Sequence[str] | None = None) -> None:
    """Print one row for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload")
    parser.add_argument("--data", required=True)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64])
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--instances", type=int, default=512)
    given = parser.parse_args(argv)
    eb.set_num_threads(1)
    print(
        "| workload | H | B | kernels | new: steps | one call | new mix: steps | one call | again: steps | one call |"
    )
    print("|---|" + "--:|" * 9)
    for hidden in given.hidden:
        for batch_size in given.batch_size:
            found = measure(given.workload, given.data, hidden, batch_size, given.instances)
            cells = " | ".join(f"{one:.0f}" for one in found)
            print(f"| {given.workload} | {hidden} | {batch_size} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
