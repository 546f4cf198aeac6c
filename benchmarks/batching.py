"""Speed of scheduling: asv classes, and a table of growth when run alone.

``python -m benchmarks.batching [--workload treelstm] [--largest 1000000] [--plot growth.png]``
"""

from __future__ import annotations

import argparse
from time import perf_counter

import numpy as np

from edbatch_tvm.batching import Policy, get_policy, learn_policy, schedule
from edbatch_tvm.graph import InstanceGraph, merge
from edbatch_tvm.models import get_workload
from edbatch_tvm.models.data import LEARN_SEED
from relay_ext.signature import signature_of

POLICIES = ("fsm", "lookahead", "ratio", "agenda", "depth")
INSTANCES = 256


def graph_of(workload: str, nodes: int) -> InstanceGraph:
    """A minibatch of about `nodes` nodes; larger minibatches contain the instances of smaller ones."""
    found = get_workload(workload)
    instances = found.generate(INSTANCES, signature_of(found.cells(1)), 0)
    sizes = np.cumsum([instance.num_nodes for instance in instances])
    rounds, rest = divmod(nodes, int(sizes[-1]))
    return merge(instances * rounds + instances[: int(np.searchsorted(sizes, rest))] or instances[:1])


def policy_of(workload: str, name: str) -> Policy:
    """A policy by name; ``fsm`` is learned on generated minibatches."""
    if name != "fsm":
        return get_policy(name)
    found = get_workload(workload)
    instances = found.generate(6 * 64, signature_of(found.cells(1)), LEARN_SEED)
    return learn_policy([merge(instances[begin : begin + 64]) for begin in range(0, len(instances), 64)])


class Scheduling:
    """Time to schedule a minibatch, caches bypassed."""

    params = (["treelstm", "lattice-lstm"], list(POLICIES), [10_000, 100_000])
    param_names = ("workload", "policy", "nodes")

    def setup(self, workload: str, policy: str, nodes: int) -> None:
        self.graph = graph_of(workload, nodes)
        self.policy = policy_of(workload, policy)
        schedule(self.graph, self.policy, cache=False)

    def time_schedule(self, workload: str, policy: str, nodes: int) -> None:
        schedule(self.graph, self.policy, cache=False)


class Search:
    """Time of a search of width 64 on a minibatch of 64 lattices."""

    def setup(self) -> None:
        found = get_workload("lattice-lstm")
        self.graph = merge(found.generate(64, signature_of(found.cells(1)), 0))
        self.policy = get_policy("search")

    def time_search(self) -> None:
        schedule(self.graph, self.policy, cache=False)


def best_seconds(graph: InstanceGraph, policy: Policy, budget: float = 1.0) -> float:
    """Least time of as many runs as fit the budget, three at least."""
    times: list[float] = []
    while len(times) < 3 or (sum(times) < budget and len(times) < 100):
        begin = perf_counter()
        schedule(graph, policy, cache=False)
        times.append(perf_counter() - begin)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description="Growth of scheduling time with the number of nodes.")
    parser.add_argument("--workload", default="treelstm")
    parser.add_argument("--largest", type=int, default=1_000_000)
    parser.add_argument("--plot", help="draw the growth; needs matplotlib")
    arguments = parser.parse_args()
    sizes = [size for size in (10_000, 31_623, 100_000, 316_228, 1_000_000, 3_162_278) if size <= arguments.largest]
    seconds: dict[str, list[float]] = {name: [] for name in POLICIES}
    nodes = []
    policies = {name: policy_of(arguments.workload, name) for name in POLICIES}
    print(f"{arguments.workload}, million nodes per second\n" + "".join(f"{text:>11}" for text in ("nodes", *POLICIES)))
    for size in sizes:
        graph = graph_of(arguments.workload, size)
        nodes.append(graph.num_nodes)
        for name, policy in policies.items():
            seconds[name].append(best_seconds(graph, policy))
        speeds = (graph.num_nodes / seconds[name][-1] / 1e6 for name in POLICIES)
        print(f"{graph.num_nodes:>11}" + "".join(f"{speed:>11.1f}" for speed in speeds), flush=True)
    for name in POLICIES:
        slope = np.polyfit(np.log(nodes), np.log(seconds[name]), 1)[0] if len(nodes) > 1 else float("nan")
        print(f"{name}: time grows as nodes to the power {slope:.2f}")
    if arguments.plot:
        draw(nodes, seconds, arguments.plot)


def draw(nodes: list[int], seconds: dict[str, list[float]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    for name, times in seconds.items():
        axes.loglog(nodes, times, "o-", label=name)
    axes.set_xlabel("nodes")
    axes.set_ylabel("seconds to schedule")
    axes.legend()
    figure.savefig(path, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
