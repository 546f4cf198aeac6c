"""Policies side by side on graphs they were not learned from: batches over the bound, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from edbatch_tvm.batching.bounds import lower_bound
from edbatch_tvm.batching.learn import LEARNERS, learn_policy
from edbatch_tvm.batching.order_bound import order_bound
from edbatch_tvm.batching.policy import Policy, get_policy
from edbatch_tvm.batching.portfolio import QUICK
from edbatch_tvm.batching.search import SearchPolicy
from edbatch_tvm.graph import InstanceGraph


@dataclass(frozen=True)
class Trial:
    """One policy on all graphs of one seed.

    Attributes
    ----------
    policy : str
        Its name in tables: a learned one is called ``fsm`` or, by the published learner, ``paper``.
    seed : int
    batches, bound, order_bound, nodes, graphs : int
        Sums over the graphs, and their number.
    schedule_seconds : float
        Time to schedule all graphs once, caches bypassed.
    states, misses, learn_seconds : int, int, float
        Of a learned policy.
    encoding : str
    """

    policy: str
    seed: int
    batches: int
    bound: int
    order_bound: int
    nodes: int
    graphs: int
    schedule_seconds: float
    states: int
    misses: int
    learn_seconds: float
    encoding: str


def compare(
    learn: Sequence[InstanceGraph], test: Sequence[InstanceGraph], seed: int = 0, widths: Sequence[int] = (8, 64)
) -> list[Trial]:
    """Try all policies.

    Parameters
    ----------
    learn : sequence of InstanceGraph
        Minibatches to learn from.
    test : sequence of InstanceGraph
        Others, to measure on.
    seed : int
        Of learning.
    widths : sequence of int
        Beams of the searches.
    """
    bound, ordered = sum(map(lower_bound, test)), sum(map(order_bound, test))
    trials = []
    for name, policy, learn_seconds in _policies(learn, seed, widths):
        for graph in test:
            policy.run(graph)
        begin = perf_counter()
        runs = [policy.run(graph) for graph in test]
        seconds = perf_counter() - begin
        trials.append(
            Trial(
                policy=name,
                seed=seed,
                batches=sum(len(run.schedule) for run in runs),
                bound=bound,
                order_bound=ordered,
                nodes=sum(graph.num_nodes for graph in test),
                graphs=len(test),
                schedule_seconds=seconds,
                states=runs[0].states,
                misses=sum(run.misses for run in runs),
                learn_seconds=learn_seconds,
                encoding=getattr(policy, "encoding", ""),
            )
        )
    return trials


def _policies(learn: Sequence[InstanceGraph], seed: int, widths: Sequence[int]) -> Iterable[tuple[str, Policy, float]]:
    for name in QUICK:
        yield name, get_policy(name), 0.0
    for learner in reversed(LEARNERS):
        begin = perf_counter()
        policy = learn_policy(learn, learner=learner, seed=seed)
        yield "paper" if learner == "paper" else "fsm", policy, perf_counter() - begin
    for width in widths:
        yield f"search-{width}", SearchPolicy(width), 0.0


@dataclass(frozen=True)
class Row:
    """One policy on one workload, over all seeds.

    Attributes
    ----------
    workload, policy : str
    ratio : float
        Batches over the lower bound, both summed over graphs and seeds.
    order_ratio : float
        Batches over :func:`~edbatch_tvm.batching.order_bound`.
    spread : float
        Batches over the bound of the worst seed over those of the best, less 1.
    misses : float
        Part of the steps taken in unknown states.
    states : int
        Of the last seed.
    learn_seconds : float
        The longest of the seeds.
    milliseconds : float
        Time to schedule one graph.
    nodes_per_second : float
    encodings : str
    """

    workload: str
    policy: str
    ratio: float
    order_ratio: float
    spread: float
    misses: float
    states: int
    learn_seconds: float
    milliseconds: float
    nodes_per_second: float
    encodings: str


def rows_of(workload: str, trials: Sequence[Trial]) -> list[Row]:
    """A row for each policy, in the order of the trials."""
    rows = []
    for policy in dict.fromkeys(trial.policy for trial in trials):
        mine = [trial for trial in trials if trial.policy == policy]

        def total(name: str, mine: list[Trial] = mine) -> Any:
            return sum(getattr(trial, name) for trial in mine)

        ratios = [trial.batches / trial.bound for trial in mine]
        rows.append(
            Row(
                workload=workload,
                policy=policy,
                ratio=total("batches") / total("bound"),
                order_ratio=total("batches") / total("order_bound"),
                spread=max(ratios) / min(ratios) - 1,
                misses=total("misses") / total("batches"),
                states=mine[-1].states,
                learn_seconds=max(trial.learn_seconds for trial in mine),
                milliseconds=1e3 * total("schedule_seconds") / total("graphs"),
                nodes_per_second=total("nodes") / total("schedule_seconds"),
                encodings=", ".join(sorted({trial.encoding for trial in mine} - {""})),
            )
        )
    return rows


def format_rows(rows: Sequence[Row]) -> str:
    """Two tables: batches over the bound, and milliseconds per minibatch; a row per workload, a column per policy."""
    workloads = list(dict.fromkeys(row.workload for row in rows))
    policies = list(dict.fromkeys(row.policy for row in rows))
    cell = {(row.workload, row.policy): row for row in rows}
    width = max(8, *map(len, workloads))
    extra = ("fsm/search", "seeds", "misses", "learn s", "encoding")
    lines = ["batches over the lower bound", _line("", width, [*policies, *extra])]
    for workload in workloads:
        fsm, search = cell[workload, "fsm"], cell[workload, policies[-1]]
        lines.append(
            _line(
                workload,
                width,
                [
                    *(f"{cell[workload, policy].ratio:.3f}" for policy in policies),
                    f"{fsm.ratio / search.ratio:.3f}",
                    f"{fsm.spread:.1%}",
                    f"{fsm.misses:.1%}",
                    f"{fsm.learn_seconds:.2f}",
                    fsm.encodings,
                ],
            )
        )
    lines += ["", "milliseconds to schedule a minibatch", _line("", width, policies)]
    lines += [
        _line(workload, width, [f"{cell[workload, policy].milliseconds:.3f}" for policy in policies])
        for workload in workloads
    ]
    return "\n".join(lines)


def _line(head: str, width: int, cells: Sequence[str]) -> str:
    return f"{head:<{width}}" + "".join(f"{text:>11}" for text in cells)


def plot_rows(rows: Sequence[Row], path: str) -> None:
    """Draw scheduling time against batches over the bound: a line per workload, a mark per policy. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6))
    for workload in dict.fromkeys(row.workload for row in rows):
        mine = sorted((row for row in rows if row.workload == workload), key=lambda row: row.milliseconds)
        axes.plot([row.milliseconds for row in mine], [row.ratio for row in mine], "o-", label=workload, alpha=0.7)
        for row in mine:
            axes.annotate(row.policy, (row.milliseconds, row.ratio), fontsize=6)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("milliseconds to schedule a minibatch")
    axes.set_ylabel("batches over the lower bound")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    pyplot.close(figure)
