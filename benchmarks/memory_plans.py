"""What each memory plan indexes, how long it takes to make, and what it does to execution time.

    python benchmarks/memory_plans.py WORKLOAD [--data FILE] [--hidden 64 256] [--batch-size 64] [--policy lookahead]

One minibatch. Execution times are medians over rounds in which the plans take turns; ``-`` is the plan ``batch``
measured a second time, for the noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter

import edbatch_tvm as eb
from edbatch_tvm.batching import Schedule
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import PLANS, Plan, plan_memory
from edbatch_tvm.models import get_workload
from edbatch_tvm.models.data import load_minibatches
from relay_ext.signature import signature_of


def timed_plan(batches: Schedule, graph: InstanceGraph, name: str, repeat: int = 41) -> tuple[float, Plan]:
    """Median time to make a plan, and the plan."""
    times = []
    for _ in range(repeat):
        begin = perf_counter()
        plan = plan_memory(batches, graph, name)
        times.append(perf_counter() - begin)
    return median(times), plan


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare memory plans.")
    parser.add_argument("workload")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--policy", default="lookahead")
    parser.add_argument("--rounds", type=int, default=41)
    options = parser.parse_args()
    workload = get_workload(options.workload)
    for hidden in options.hidden:
        mod = workload.cells(hidden)
        signature = signature_of(mod)
        (instances,) = load_minibatches(workload, signature, options.data, options.batch_size, 1, 0)
        model = eb.compile(mod, workload.weights(hidden), policy=options.policy)
        graph = model.merge(instances)
        batches, _ = model.schedule(graph)
        begin = perf_counter()
        plan_memory(batches, graph, "pq")
        first = perf_counter() - begin
        names = [*PLANS, "-"]
        made = [timed_plan(batches, graph, "batch" if name == "-" else name) for name in names]
        times: list[list[float]] = [[] for _ in names]
        for number in range(options.rounds + 2):
            for turn in range(len(made)):
                place = (number + turn) % len(made)
                plan = made[place][1]
                begin = perf_counter()
                model.execute(graph, plan)
                if number >= 2:
                    times[place].append(perf_counter() - begin)
        print(f"{workload.name}, hidden {hidden}: {graph.num_nodes} nodes, {len(batches)} batches, pq {first:.2f} s")
        print("  plan   contiguous broadcast indexed MB indexed  plan ms execute ms")
        for name, (seconds, plan), found in zip(names, made, times, strict=True):
            counts, mega = plan.operands, plan.bytes_indexed / 1e6
            print(
                f"  {name:<6} {counts['contiguous']:>10} {counts['broadcast']:>9} {counts['indexed']:>7} {mega:>10.2f} "
                f"{seconds * 1e3:>8.2f} {median(found) * 1e3:>10.2f}"
            )


if __name__ == "__main__":
    main()
