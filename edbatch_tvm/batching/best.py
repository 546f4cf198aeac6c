"""Policies ``best`` and ``auto``: run several, keep the one of fewest batches."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from edbatch_tvm.batching.policy import Policy, Run, get_policy, register_policy
from edbatch_tvm.batching.search import WIDTH, SearchPolicy, SearchProgress
from edbatch_tvm.graph import InstanceGraph

QUICK = ("depth", "agenda", "lookahead", "ratio")
"""Policies without a table, cheapest first."""


class BestPolicy(Policy):
    """Runs all its policies on the graph and keeps the schedule of fewest batches; the first of equals.

    Parameters
    ----------
    policies : sequence of Policy
    name : str
    """

    def __init__(self, policies: Sequence[Policy], name: str = "best") -> None:
        self.policies = tuple(policies)
        self.name = name

    @property
    def identity(self) -> Hashable:
        """Name and the policies'."""
        return self.name, tuple(policy.identity for policy in self.policies)

    def run(self, graph: InstanceGraph) -> Run:
        """Schedule `graph`."""
        best = min((policy.run(graph) for policy in self.policies), key=lambda run: len(run.schedule))
        return Run(best.schedule, f"{self.name} ({best.policy})", best.misses, best.states)

    def __repr__(self) -> str:
        return f"BestPolicy({', '.join(map(repr, self.policies))}, name={self.name!r})"


def quick_policies() -> tuple[Policy, ...]:
    """The policies that need no table, cheapest first."""
    return tuple(get_policy(name) for name in QUICK)


def best_policy(width: int = WIDTH, progress: SearchProgress | None = None) -> BestPolicy:
    """Policy ``best`` with a beam of this width; see :class:`edbatch_tvm.batching.SearchPolicy`."""
    return BestPolicy((*quick_policies(), SearchPolicy(width, progress=progress)))


register_policy("best", best_policy)
register_policy("auto", lambda: BestPolicy(quick_policies(), "auto"))
