"""Which policy for a model: decided once, on sample minibatches."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from edbatch_tvm.batching.cost_model import CostTable
from edbatch_tvm.batching.learn import AUTO, learn_policy, split_for_validation
from edbatch_tvm.batching.policy import Policy
from edbatch_tvm.batching.portfolio import cost_of, quick_policies
from edbatch_tvm.graph import InstanceGraph


def select_policy(
    sample_graphs: Sequence[InstanceGraph],
    learn: bool = True,
    encoding: str = AUTO,
    seed: int = 0,
    costs: CostTable | None = None,
) -> Policy:
    """The policy with the fewest batches on samples; among equals, the one that takes the least host time.

    Parameters
    ----------
    sample_graphs : sequence of InstanceGraph
        Minibatches of the model. From three on, every third is held back from learning, and the choice is made there.
    learn : bool
        Whether to learn a state machine too, which takes up to some seconds. Where ``lookahead`` has as few batches,
        a state machine finds them in less time: it needs no heights.
    encoding : str
        Its encoding, see :func:`edbatch_tvm.batching.learn_policy`.
    seed : int
    costs : CostTable, optional
        Choose the policy whose batches take least time instead.

    Returns
    -------
    Policy
    """
    graphs = [graph for graph in sample_graphs if graph.num_nodes]
    policies: list[Policy] = list(quick_policies())
    if not graphs:
        return policies[0]
    lesson, held_back = split_for_validation(graphs)
    if learn:
        policies.append(learn_policy(lesson, encoding, seed=seed))
    return quickest_of_best(policies, held_back, costs)


def quickest_of_best(
    policies: Sequence[Policy], graphs: Sequence[InstanceGraph], costs: CostTable | None = None
) -> Policy:
    """The policy of fewest batches over `graphs`, or of least time; among equals the one that takes least host time."""
    ranking = []
    for index, policy in enumerate(policies):
        cost = sum(cost_of(policy(graph), costs) for graph in graphs)
        begin = perf_counter()
        for graph in graphs:
            policy.run(graph)
        ranking.append((cost, perf_counter() - begin, index))
    return policies[min(ranking)[2]]
