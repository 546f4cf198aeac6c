"""Where fewest batches is not fastest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edbatch_tvm.batching.cost_model import CostTable
from edbatch_tvm.batching.policy import Run
from edbatch_tvm.batching.portfolio import quick_policies
from edbatch_tvm.batching.search import WIDTH, SearchPolicy
from edbatch_tvm.graph import InstanceGraph


@dataclass(frozen=True)
class BatchesAgainstTime:
    """The schedule of fewest batches and the one of least time, summed over graphs.

    Attributes
    ----------
    fewest_batches, fewest_seconds : int, float
        Batches of the schedules of fewest batches, and the time that the cost table expects of them.
    fastest_batches, fastest_seconds : int, float
        The same of the schedules of least time.
    graphs, differing : int
        Number of graphs, and of those where fewest batches is not fastest.
    """

    fewest_batches: int
    fewest_seconds: float
    fastest_batches: int
    fastest_seconds: float
    graphs: int
    differing: int

    def __str__(self) -> str:
        saved = 1 - self.fastest_seconds / self.fewest_seconds if self.fewest_seconds else 0.0
        return (
            f"fewest batches  {self.fewest_batches} in {self.fewest_seconds * 1e3:.3f} ms\n"
            f"least time      {self.fastest_batches} in {self.fastest_seconds * 1e3:.3f} ms, {saved:.1%} less\n"
            f"they differ on  {self.differing} of {self.graphs} graphs"
        )


def weigh_batches_against_time(
    graphs: Sequence[InstanceGraph], costs: CostTable, width: int = WIDTH
) -> BatchesAgainstTime:
    """Compare the best schedules by number of batches with the best by time.

    Parameters
    ----------
    graphs : sequence of InstanceGraph
    costs : CostTable
    width : int
        Of the beam searches, one for each objective.
    """
    few = fast = differing = 0
    few_seconds = fast_seconds = 0.0
    policies = (*quick_policies(), SearchPolicy(width), SearchPolicy(width, costs=costs))
    for graph in graphs:
        runs = [policy.run(graph) for policy in policies]

        def seconds(run: Run) -> float:
            return costs.of_schedule(run.schedule)

        fewest = min(runs, key=lambda run: (len(run.schedule), seconds(run)))
        fastest = min(runs, key=lambda run: (seconds(run), len(run.schedule)))
        differing += seconds(fastest) < seconds(fewest)
        few, few_seconds = few + len(fewest.schedule), few_seconds + seconds(fewest)
        fast, fast_seconds = fast + len(fastest.schedule), fast_seconds + seconds(fastest)
    return BatchesAgainstTime(few, few_seconds, fast, fast_seconds, len(graphs), differing)
