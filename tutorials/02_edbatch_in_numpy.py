"""
ED-Batch in 200 lines of NumPy
==============================

The method of Chen et al. (`ICML 2023 <https://proceedings.mlr.press/v202/chen23ai.html>`_) from the ground up, without
this package: a graph of typed nodes, a policy that says which type to run next, a finite state machine learned as that
policy, and the batches executed.
"""

# %%
# Graphs
# ------
# A node has a type and operands, which are nodes before it. These are trees: words at the leaves, inner nodes of two
# types ``a`` and ``b`` with weights of their own, and an output at every node of the tree. A minibatch is all trees
# side by side.

from __future__ import annotations

from collections import defaultdict

import matplotlib.pyplot as plt
import numpy as np

NAMES = ["leaf", "a", "b", "out"]
LEAF, A, B, OUT = range(4)
COLOURS = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1"]
rng = np.random.default_rng(1)


def minibatch(trees: int) -> tuple[np.ndarray, list[list[int]]]:
    """Types and operands of the nodes of random trees."""
    types: list[int] = []
    operands: list[list[int]] = []

    def add(kind: int, *reads: int) -> int:
        types.append(kind)
        operands.append(list(reads))
        return len(types) - 1

    for _ in range(trees):
        roots = [add(LEAF) for _ in range(rng.integers(4, 10))]
        every = list(roots)
        while len(roots) > 1:
            at = rng.integers(len(roots) - 1)
            roots[at : at + 2] = [add(int(rng.choice([A, B])), *roots[at : at + 2])]
            every.append(roots[at])
        for node in every:
            add(OUT, node)
    return np.array(types), operands


types, operands = minibatch(32)
n = len(types)
users: list[list[int]] = [[] for _ in range(n)]
for node, reads in enumerate(operands):
    for producer in reads:
        users[producer].append(node)
print({name: int((types == kind).sum()) for kind, name in enumerate(NAMES)})

# %%
# The frontier
# ------------
# The ready nodes, by type. A step runs all ready nodes of one type: to run fewer never helps.


class Frontier:
    """Ready nodes of a partly executed graph."""

    def __init__(self) -> None:
        self.waits = [len(reads) for reads in operands]
        self.ready: list[list[int]] = [[] for _ in NAMES]
        self.left = np.ones(n, bool)
        for node in range(n):
            if not operands[node]:
                self.ready[types[node]].append(node)

    def run(self, kind: int) -> list[int]:
        """Run the ready nodes of a type."""
        batch, self.ready[kind] = self.ready[kind], []
        self.left[batch] = False
        for node in batch:
            for user in users[node]:
                self.waits[user] -= 1
                if not self.waits[user]:
                    self.ready[types[user]].append(user)
        return batch


def schedule(choose) -> list[tuple[int, list[int]]]:
    """Batches of a policy: ``choose(frontier)`` is the type to run."""
    frontier, batches = Frontier(), []
    while frontier.left.any():
        kind = choose(frontier)
        batches.append((kind, frontier.run(kind)))
    return batches


# %%
# No schedule has fewer batches than, for each type, its largest number of nodes on one path, summed over the types.

on_path = np.zeros((n, len(NAMES)), int)
for node in range(n):
    on_path[node] = np.max([on_path[p] for p in operands[node]], axis=0) if operands[node] else 0
    on_path[node, types[node]] += 1
bound = int(on_path.max(axis=0).sum())

# %%
# Two rules that other systems use: DyNet runs the type of least average depth. TensorFlow Fold runs nodes of equal
# depth.

depth = np.zeros(n, int)
for node in range(n):
    depth[node] = max((depth[p] + 1 for p in operands[node]), default=0)
mean_depth = [depth[types == kind].mean() for kind in range(len(NAMES))]


def agenda(frontier: Frontier) -> int:
    """The ready type of least average depth."""
    return min((kind for kind, nodes in enumerate(frontier.ready) if nodes), key=lambda kind: mean_depth[kind])


by_depth = len({(d, kind) for d, kind in zip(depth.tolist(), types.tolist(), strict=True)})
print(f"bound {bound}, depth {by_depth}, agenda {len(schedule(agenda))}")

# %%
# A state machine
# ---------------
# What to run next depends on more than a number for each type. The policy of ED-Batch is a table from a *state*, the
# ready types by number of ready nodes, to an *action*, the type to run. Reinforcement learning fills it. The reward of
# running type t is
#
# .. math:: -1 + \frac{|\text{ready nodes of } t|}{|\text{nodes of } t \text{ without unexecuted ancestors of type } t|}
#
# Each batch costs one. If the fraction is 1, no node of the type that could ever join is missing, and running t now is
# optimal.


def state_of(frontier: Frontier) -> tuple[int, ...]:
    """The ready types, most nodes first."""
    ready = [kind for kind, nodes in enumerate(frontier.ready) if nodes]
    return tuple(sorted(ready, key=lambda kind: (-len(frontier.ready[kind]), kind)))


ancestor = np.zeros((n, n), bool)  # ancestor[v, u]: there is a path from u to v
for node in range(n):
    for producer in operands[node]:
        ancestor[node] |= ancestor[producer]
        ancestor[node, producer] = True
members = [np.flatnonzero(types == kind) for kind in range(len(NAMES))]
within = [ancestor[np.ix_(nodes, nodes)].astype(np.float32) for nodes in members]


def reward(frontier: Frontier, kind: int) -> float:
    """Reward of running `kind` now."""
    left = frontier.left[members[kind]]
    free = left & (within[kind] @ left.astype(np.float32) == 0)
    return -1 + len(frontier.ready[kind]) / int(free.sum())


# %%
# Q-learning: Q[state][action] is what is still to come after that action. An episode schedules the whole graph, now and
# then by a random action; each visited entry moves towards the rewards of the next 10 steps plus the best entry of the
# state reached by then.

STEPS, RATE, EPISODES = 10, 0.4, 120
Q: dict[tuple[int, ...], dict[int, float]] = defaultdict(dict)


def greedy(frontier: Frontier) -> int:
    """The best known action; the type of most ready nodes in a state never seen."""
    state = state_of(frontier)
    return max(state, key=lambda kind: Q[state].get(kind, 0.0)) if state in Q else state[0]


def episode(explore: float) -> None:
    """Schedule once and learn."""
    frontier, seen = Frontier(), []
    while frontier.left.any():
        state = state_of(frontier)
        kind = int(rng.choice(state)) if rng.random() < explore else greedy(frontier)
        seen.append((state, kind, reward(frontier, kind)))
        frontier.run(kind)
    for at, (state, kind, _) in enumerate(seen):
        later = seen[at + STEPS][0] if at + STEPS < len(seen) else None
        value = sum(r for _, _, r in seen[at : at + STEPS])
        value += max((Q[later].get(k, 0.0) for k in later), default=0.0) if later else 0.0
        old = Q[state].get(kind, 0.0)
        Q[state][kind] = old + RATE * (value - old)


curve, explore, best = [], 0.5, (10**9, {})
for _ in range(EPISODES):
    episode(explore)
    explore = max(0.05, 0.9 * explore)
    curve.append(len(schedule(greedy)))
    if curve[-1] < best[0]:
        best = curve[-1], {state: dict(row) for state, row in Q.items()}
Q = defaultdict(dict, best[1])
batches = schedule(greedy)
print(f"learned {len(batches)} batches, bound {bound}")
for state in sorted(Q, key=len)[:6]:
    print(" > ".join(NAMES[kind] for kind in state), "->", NAMES[max(state, key=lambda kind: Q[state].get(kind, 0.0))])

# %%
# Run the batches
# ---------------
# A batch is one matrix product: the operands' rows are gathered, multiplied and written.

H = 48
words = rng.integers(100, size=n)
embedding = rng.normal(size=(100, H))
weight = {kind: rng.normal(size=(rows * H, H)) / H**0.5 for kind, rows in ((A, 2), (B, 2), (OUT, 1))}


def execute(batches: list[tuple[int, list[int]]]) -> np.ndarray:
    """The value of every node."""
    values = np.zeros((n, H))
    for kind, nodes in batches:
        if kind == LEAF:
            values[nodes] = embedding[words[nodes]]
        else:
            rows = values[[operands[node] for node in nodes]].reshape(len(nodes), -1)
            values[nodes] = rows @ weight[kind] if kind == OUT else np.tanh(rows @ weight[kind])
    return values


one_by_one = [(int(types[node]), [node]) for node in range(n)]
np.testing.assert_allclose(execute(batches), execute(one_by_one), atol=1e-9)
print(f"{len(batches)} products instead of {n}, the same values")

# %%
# The schedules side by side: a box is a batch.

figure, (top, low) = plt.subplots(2, 1, figsize=(9, 4), layout="constrained")
for row, found in enumerate([batches, schedule(agenda)]):
    for at, (kind, nodes) in enumerate(found):
        top.barh(row, 0.9, left=at, height=0.25 + 0.6 * np.log(len(nodes)) / np.log(n), color=COLOURS[kind])
top.set(yticks=[0, 1], yticklabels=["learned", "agenda"], xlabel="batch")
top.legend([plt.Rectangle((0, 0), 1, 1, color=c) for c in COLOURS], NAMES, ncols=4, frameon=False, loc="upper left")
top.set_ylim(-0.6, 2.1)
low.plot(curve, color="#4e79a7", label="learned table, rolled out")
low.axhline(bound, color="#59a14f", linestyle="--", label="lower bound")
low.axhline(len(schedule(agenda)), color="#bab0ac", linestyle="--", label="agenda")
low.set(xlabel="episode", ylabel="batches")
low.legend(frameon=False)
plt.show()
