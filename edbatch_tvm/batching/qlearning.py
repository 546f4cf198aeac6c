"""Tabular Q-learning of a state machine, as published (Chen et al., ICML 2023, section 3.3, and its artefact).

n-step returns are taken at the end of an episode, from its first step to its last; a value that was never learned is 0,
in the bootstrap and in the greedy action too, which makes untried actions look good, as every reward is 0 at most. What
the text leaves open is as the authors' code has it: one minibatch to learn from, reward weight 1, the other settings.
One thing is not: there the bootstrap is the larger of 0 and the best value, which is always 0; here it is the best
value, as in the text. What the machine does in a state it never met is the policy's matter, and the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edbatch_tvm.batching import native_kernels
from edbatch_tvm.batching.bounds import lower_bound
from edbatch_tvm.batching.encoding import State, encode, types_of
from edbatch_tvm.batching.fixed_point import RATE_BITS, UNIT
from edbatch_tvm.batching.frontier import Frontier
from edbatch_tvm.batching.fsm import batches_of
from edbatch_tvm.batching.splitmix import SplitMix
from edbatch_tvm.batching.state_table import ValueTable
from edbatch_tvm.graph import InstanceGraph

Progress = Callable[[int, int, int], None]
"""Called with episodes done, batches of the best table so far, and the bound."""


@dataclass(frozen=True)
class QLearning:
    """The published settings.

    Attributes
    ----------
    minibatches : int
        Number of the given minibatches to learn from, in turn.
    alpha : float
        Weight of ``|frontier| / |typewise frontier|`` in the reward ``-1 + alpha * ratio``.
    rate : float
        Learning rate.
    steps : int
        Length of the returns.
    epsilon, epsilon_decay, epsilon_least : float
        Initial exploration, its factor per episode, and its least value.
    episodes : int
        Largest number of episodes.
    evaluate_every : int
        Episodes between greedy roll-outs; the table of the best one is kept.
    tolerance : float
        Stop when the roll-out is less than this part above the lower bound.
    """

    minibatches: int = 1
    alpha: float = 1.0
    rate: float = 0.4
    steps: int = 10
    epsilon: float = 0.5
    epsilon_decay: float = 0.9
    epsilon_least: float = 0.05
    episodes: int = 1000
    evaluate_every: int = 50
    tolerance: float = 0.01


def q_learn(
    graphs: Sequence[InstanceGraph],
    encoding: int,
    seed: int,
    settings: QLearning,
    progress: Progress | None = None,
) -> tuple[dict[State, int], int]:
    """Learn a table by episodes.

    Returns
    -------
    table : dict
        The best greedy table.
    episodes : int
        Episodes run.
    """
    graphs = [graph for graph in graphs if graph.num_nodes][: settings.minibatches]
    bound = sum(map(lower_bound, graphs))
    values = ValueTable(graphs[0].num_types, settings.alpha, settings.rate, settings.steps, seed)
    best: dict[State, int] = {}
    least: int | None = None
    epsilon = settings.epsilon
    episode = 0
    while episode < settings.episodes:
        run_episode(graphs[episode % len(graphs)], encoding, values, epsilon)
        epsilon = max(epsilon * settings.epsilon_decay, settings.epsilon_least)
        episode += 1
        if episode % settings.evaluate_every and episode < settings.episodes:
            continue
        table = values.greedy(encoding)
        batches = batches_of(table, graphs, encoding)
        if least is None or batches < least:
            best, least = table, batches
        if progress is not None:
            progress(episode, least, bound)
        if least < bound * (1 + settings.tolerance):
            break
    return best, episode


def run_episode(graph: InstanceGraph, encoding: int, values: ValueTable, epsilon: float) -> int:
    """One episode; changes `values` and returns the number of batches."""
    threshold = round(epsilon * (1 << 32))
    kernels = native_kernels.kernels()
    if kernels is None:
        return reference_episode(graph, encoding, values, threshold)
    return kernels.learn_episode(graph, encoding, values, threshold)


def reference_episode(graph: InstanceGraph, encoding: int, values: ValueTable, threshold: int) -> int:
    """:func:`run_episode` in plain Python."""
    values.make_room(graph.num_nodes)
    frontier = Frontier(graph, typewise=True)
    random = SplitMix.resume(int(values.random_state[0]))
    width = values.num_types
    trace: list[tuple[np.ndarray, State, int, int]] = []
    while frontier.remaining:
        state = encode(frontier, encoding)
        row = values.row(state)
        drawn = random.draw()
        if drawn >> 32 < threshold:
            ready = [t for t in range(width) if frontier.size[t]]
            action = ready[(drawn & 0xFFFFFFFF) * len(ready) >> 32]
        else:
            action = min(types_of(state, encoding), key=lambda t: (-row[t], t))
        row[width + action] += 1
        reward = (values.alpha * frontier.size[action]) // frontier.typewise_size[action] - UNIT
        trace.append((row, state, action, reward))
        frontier.execute(action)
    for step in range(len(trace)):
        until = min(step + values.steps, len(trace))
        total = sum(reward for *_, reward in trace[step:until])
        if until < len(trace):
            row, state = trace[until][:2]
            total += max(int(row[t]) for t in types_of(state, encoding))
        row, _, action, _ = trace[step]
        row[action] += (total - int(row[action])) * values.rate >> RATE_BITS
    values.random_state[0] = random.signed_state
    return len(trace)


__all__ = ["Progress", "QLearning", "q_learn", "reference_episode", "run_episode"]
