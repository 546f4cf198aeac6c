"""Which policy for a model: decided once, on sample minibatches."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from edbatch_tvm.batching.cost_model import CostTable
from edbatch_tvm.batching.learn import AUTO, learn_policy, split_for_validation
from edbatch_tvm.batching.policy import Policy
from edbatch_tvm.batching.portfolio import cost_of, quick_policies
from edbatch_tvm.graph import InstanceGraph

NEAR = 1.1
"""Policies up to this part of the fewest batches are compared by time: to find ``ratio``'s takes up to three times as
long as to find those of ``lookahead``, which is as long as dozens of batches of a large minibatch."""

BATCH_SECONDS = 5e-6
"""What one more batch costs, about, beside the work of its nodes."""

_RUNS, _LONG = 3, 0.01
"""Runs of each policy that are timed, unless they take this many seconds. The quickest counts: a disturbance of one run
would decide for good."""


def select_policy(
    sample_graphs: Sequence[InstanceGraph],
    learn: bool = True,
    encoding: str = AUTO,
    seed: int = 0,
    costs: CostTable | None = None,
) -> Policy:
    """The policy with the fewest batches on samples; or one that has up to a tenth more, and less host time.

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
    """The policy of fewest batches over `graphs`, or of least time; where others are near, host time counts, too."""
    cost = [sum(cost_of(policy(graph), costs) for graph in graphs) for policy in policies]
    near = [index for index, own in enumerate(cost) if own <= NEAR * min(cost)]
    if len(near) == 1:
        return policies[near[0]]
    seconds = dict.fromkeys(near, float("inf"))
    for _ in range(_RUNS):
        for index in near:
            begin = perf_counter()
            for graph in graphs:
                policies[index].run(graph)
            seconds[index] = min(seconds[index], perf_counter() - begin)
        if min(seconds.values()) > _LONG:
            break
    each = 1.0 if costs is not None else BATCH_SECONDS
    return policies[min(near, key=lambda index: each * cost[index] + seconds[index])]
