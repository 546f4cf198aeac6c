"""Policies ``best`` and ``auto``: run several, keep the schedule of fewest batches, or of least time."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from edbatch_tvm.batching.cost_model import CostTable
from edbatch_tvm.batching.policy import Policy, Run, get_policy, identity_of, register_policy
from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.batching.search import WIDTH, SearchPolicy, SearchProgress
from edbatch_tvm.graph import InstanceGraph

QUICK = ("depth", "agenda", "lookahead", "ratio")
"""Policies without a table, cheapest first."""


class PortfolioPolicy(Policy):
    """Runs all its policies on the graph and keeps the best schedule, the first one among equals.

    Parameters
    ----------
    policies : sequence of Policy
    name : str
    costs : CostTable, optional
        What makes a schedule good: the time of its batches. Default is their number.
    """

    def __init__(self, policies: Sequence[Policy], name: str = "best", costs: CostTable | None = None) -> None:
        self.policies = tuple(policies)
        self.name = name
        self.costs = costs

    @property
    def identity(self) -> Hashable:
        """Name, the policies' and the costs."""
        return self.name, tuple(identity_of(policy) for policy in self.policies), self.costs and self.costs.digest

    @property
    def trusted(self) -> bool:
        """Whether all of the policies are."""
        return all(policy.trusted for policy in self.policies)

    def run(self, graph: InstanceGraph) -> Run:
        """Schedule `graph`."""
        runs = (policy.run(graph) for policy in self.policies)
        best = min(runs, key=lambda run: cost_of(run.schedule, self.costs))
        return Run(best.schedule, f"{self.name} ({best.policy})", best.misses, best.states)

    def __repr__(self) -> str:
        return f"PortfolioPolicy({', '.join(map(repr, self.policies))}, name={self.name!r})"


def cost_of(schedule: Schedule, costs: CostTable | None) -> float:
    """Number of batches, or, with costs, their seconds."""
    return len(schedule) if costs is None else costs.of_schedule(schedule)


def quick_policies() -> tuple[Policy, ...]:
    """The policies that need no table, cheapest first."""
    return tuple(get_policy(name) for name in QUICK)


def best_policy(
    width: int = WIDTH, progress: SearchProgress | None = None, costs: CostTable | None = None
) -> PortfolioPolicy:
    """Policy ``best`` with a beam of this width; see :class:`edbatch_tvm.batching.SearchPolicy`."""
    search = SearchPolicy(width, progress=progress, costs=costs)
    return PortfolioPolicy((*quick_policies(), search), costs=costs)


register_policy("best", best_policy)
register_policy("auto", lambda: PortfolioPolicy(quick_policies(), "auto"))
