"""Host time of minibatches in one call of compiled code, and in steps: ``python -m benchmarks.host_time``.

Microseconds of a minibatch: of instances that are seen for the first time, in mixes that are new, and in minibatches
that came before, whose schedules and plans Python keeps. Processor time, medians, in turns, one thread. ``kernels`` is
the time of the kernels alone: of the program called with arguments that are ready. ``merge``, ``schedule`` and ``plan``
are what a call on a new mix says of itself; ``host`` is the part of the call that they take.
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

STAGES = "build", "schedule", "plan"
NEW_MIX = 4
"""Where the time of one call on a new mix is among those of :func:`measure`."""


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


def measure(name: str, data: str, hidden: int, batch_size: int, count: int, policy: str) -> list[float]:
    """Microseconds: kernels; in steps and in one call of new instances, new mixes and known minibatches; stages."""
    workload = get_workload(name)
    model = eb.compile(workload.cells(hidden), workload.weights(hidden), policy=policy)
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
    stages: list[list[float]] = []
    order = np.arange(count)
    for mixed in (False, True, False):
        if mixed:
            order = np.random.default_rng(0).permutation(count)
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for begin in range(0, count - batch_size + 1, batch_size):
            for way, run in ways.items():
                own = [apart[way][place] for place in order[begin : begin + batch_size]]
                start = thread_time()
                result = run(own)
                taken[way].append(thread_time() - start)
                if mixed and way == "one call":
                    stages.append([result.report.seconds[stage] for stage in STAGES])
                del result  # its arenas are for the next
        found += [statistics.median(one) for one in taken.values()]
    return [1e6 * one for one in [*found, *map(statistics.median, zip(*stages, strict=True))]]


def main(argv: Sequence[str] | None = None) -> None:
    """Print one row for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload")
    parser.add_argument("--data", required=True)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64])
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--instances", type=int, default=512)
    parser.add_argument("--policy", default="agenda")
    given = parser.parse_args(argv)
    eb.set_num_threads(1)
    ways = " | ".join(f"{kind}: steps | one call" for kind in ("new", "new mix", "again"))
    print(f"| workload | H | B | kernels | {ways} | merge | schedule | plan | host |")
    print("|---|" + "--:|" * 13)
    for hidden in given.hidden:
        for batch_size in given.batch_size:
            found = measure(given.workload, given.data, hidden, batch_size, given.instances, given.policy)
            cells = " | ".join(f"{one:.0f}" for one in found)
            host = sum(found[-len(STAGES) :]) / found[NEW_MIX]
            print(f"| {given.workload} | {hidden} | {batch_size} | {cells} | {host:.0%} |", flush=True)


if __name__ == "__main__":
    main()
