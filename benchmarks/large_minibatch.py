"""One minibatch of very many nodes: seconds and memory of each step, and the results against single instances.

python benchmarks/large_minibatch.py [--workload NAME] [--nodes N] [--hidden H] [--policy NAME] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path
from time import perf_counter

import numpy as np

import edbatch_tvm as eb
from edbatch_tvm.atomic_file import write_text
from edbatch_tvm.models import get_workload

POOL = 500
"""Instances that are generated; a minibatch holds each as often as it takes."""


def peak() -> float:
    """Most memory this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    """Print seconds and peak memory after every step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", default="treelstm")
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--policy", default="lookahead")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    workload = get_workload(arguments.workload)
    model = eb.compile(
        workload.cells(arguments.hidden), workload.weights(arguments.hidden), policy=arguments.policy, plan="batch"
    )
    pool = workload.generate(POOL, model.cells)
    nodes = sum(graph.num_nodes for graph in pool)
    instances = (pool * (arguments.nodes // nodes + 1))[: max(1, POOL * arguments.nodes // nodes + 1)]
    model(pool[:2])
    rows: list[tuple[str, float, float]] = []

    def step(name: str, begin: float) -> None:
        rows.append((name, perf_counter() - begin, peak()))
        print(f"{name:<9} {rows[-1][1]:8.3f} s  {rows[-1][2]:8.0f} MiB", flush=True)

    step("before", perf_counter())
    begin = perf_counter()
    graph = model.merge(instances)
    step("merge", begin)
    begin = perf_counter()
    schedule, info = model.schedule(graph)
    step("schedule", begin)
    begin = perf_counter()
    plan = model.plan(graph, schedule)
    step("plan", begin)
    begin = perf_counter()
    result = model.execute(graph, plan, info)
    step("execute", begin)
    wrong = 0.0
    for number in (0, len(instances) // 2, len(instances) - 1):
        alone = model([instances[number]])[0]
        wrong = max(wrong, *(float(np.abs(a - b).max()) for a, b in zip(result[number], alone, strict=True)))
    print(
        f"{arguments.workload}, hidden {arguments.hidden}: {graph.num_nodes} nodes of {len(instances)} instances, "
        f"{len(schedule)} batches (bound {info.lower_bound}); largest difference from single instances {wrong:.1e}"
    )
    if arguments.json:
        write_text(arguments.json, json.dumps({"nodes": graph.num_nodes, "batches": len(schedule), "steps": rows}))
    raise SystemExit(not wrong < 1e-5)


if __name__ == "__main__":
    main()
