"""
A PyTorch model as it is
========================

A tree network in PyTorch is a recursive ``forward``: every tree is another graph, so it runs one node at a time. Here
such a model is batched without a change, by naming the method that does the work.
"""

# %%
# The model
# ---------
# The child-sum TreeLSTM of Tai, Socher and Manning (2015). ``node_forward`` takes the states of any number of children
# as the rows of two matrices; ``states`` walks the tree.

from __future__ import annotations

from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import edbatch_tvm as eb

H, VOCABULARY = 64, 1000


class TreeLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, H)
        self.iou_x, self.iou_h = nn.Linear(H, 3 * H), nn.Linear(H, 3 * H, bias=False)
        self.f_x, self.f_h = nn.Linear(H, H), nn.Linear(H, H, bias=False)
        self.output = nn.Linear(H, 5)

    def node_forward(self, x, child_c, child_h):
        i, o, u = (self.iou_x(x) + self.iou_h(child_h.sum(0, keepdim=True))).chunk(3, dim=1)
        f = torch.sigmoid(self.f_x(x) + self.f_h(child_h))
        c = torch.sigmoid(i) * torch.tanh(u) + (f * child_c).sum(0, keepdim=True)
        return c, torch.sigmoid(o) * torch.tanh(c)

    def states(self, tree):
        word, children = tree
        below = [self.states(child) for child in children] or [(torch.zeros(1, H), torch.zeros(1, H))]
        child_c, child_h = (torch.cat(parts) for parts in zip(*below, strict=True))
        return self.node_forward(self.embedding.weight[word], child_c, child_h)

    def forward(self, tree):
        return self.output(self.states(tree)[1])


# %%
# Some trees: a word and a list of children, as nested tuples.

rng = np.random.default_rng(0)


def random_tree(nodes: int) -> tuple:
    """A tree with this number of nodes."""
    sizes = []
    left = nodes - 1
    while left:
        sizes.append(int(rng.integers(1, left + 1)))
        left -= sizes[-1]
    return int(rng.integers(VOCABULARY)), [random_tree(size) for size in sizes]


trees = [random_tree(int(rng.integers(10, 40))) for _ in range(64)]

# %%
# Batched
# -------
# ``eb.autobatch`` takes the model and the names of its cells: submodules or methods. While ``forward`` runs, calls of
# them return tensors that are not computed yet; then everything that was recorded runs in batches. The first call
# exports the cells with ``torch.export`` and compiles them for the shapes it sees.

torch.manual_seed(0)
model = TreeLSTM().eval().requires_grad_(False)
fast = eb.autobatch(model, cells=["node_forward"])

begin = perf_counter()
fast(trees)
print(f"first call: {perf_counter() - begin:.1f} s")

results = fast(trees)
expected = [model(tree) for tree in trees]
error = max((one - other).abs().max().item() for one, other in zip(results, expected, strict=True))
print(f"largest difference from PyTorch: {error:.1e}")
assert error < 1e-5
print(fast.reports[0])

# %%
# ``fast.compiled`` is the compiled model: leaves, whose states are constants, and nodes with any number of children are
# two cells, the readout between them and the result a third.

for cell in fast.compiled.signature:
    print(cell)

# %%
# How much faster?
# ----------------
# Eager PyTorch runs some ten kernels per node, whatever the number of trees; batches get larger with it.


def seconds(action) -> float:
    """The shorter time of two runs."""
    times = []
    for _ in range(2):
        begin = perf_counter()
        action()
        times.append(perf_counter() - begin)
    return min(times)


counts = [1, 4, 16, 64]
eager = [seconds(lambda: [model(tree) for tree in trees[:count]]) / count for count in counts]  # noqa: B023
batched = [seconds(lambda: fast(trees[:count])) / count for count in counts]  # noqa: B023

figure, axes = plt.subplots(figsize=(6, 3.5))
axes.loglog(counts, np.array(eager) * 1e3, "o-", label="PyTorch, one node at a time")
axes.loglog(counts, np.array(batched) * 1e3, "o-", label="eb.autobatch")
axes.set_xticks(counts, [str(count) for count in counts])
axes.set_xlabel("trees in a minibatch")
axes.set_ylabel("ms a tree")
axes.legend()
figure.tight_layout()
plt.show()

# %%
# Weights that change
# -------------------
# The weights are those of the model. An update is taken over at the next call.

model.output.bias += 1.0
print((fast(trees)[0] - results[0]).round(decimals=4))
