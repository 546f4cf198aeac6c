"""
Train a sentiment TreeLSTM
==========================

A recursive network in plain PyTorch, and the training loop that one has for it. One line makes the forward pass and
the backward pass of a minibatch run in batches. Gradients, losses and curves are those of the eager loop.
"""

# %%
# Labelled trees
# --------------
# A sentence is a binary tree whose nodes have labels: positive or not. Give the script a file of the Stanford Sentiment
# Treebank to train on real sentences. Without one it makes a treebank up, of words that please or do not, and of
# negations that turn the phrase behind them around.

from __future__ import annotations

import copy
import sys
import warnings
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import edbatch_tvm as eb
from edbatch_tvm.errors import SlowerWarning

# Made-up trees are small: now and then an eager call of them takes no longer, which would be told.
warnings.filterwarnings("ignore", category=SlowerWarning)


class Tree(NamedTuple):
    label: int
    word: str = ""
    left: Tree | None = None
    right: Tree | None = None


def read(text: str) -> Tree:
    """A tree of a line such as ``(3 (2 a) (4 joy))``."""
    stack: list[list] = [[]]
    for token in text.replace("(", " ( ").replace(")", " ) ").split():
        if token == "(":
            stack.append([])
        elif token == ")":
            label, *parts = stack.pop()
            tree = Tree(int(label), parts[0]) if isinstance(parts[0], str) else Tree(int(label), "", *parts)
            stack[-1].append(tree)
        else:
            stack[-1].append(token)
    return stack[0][0]


rng = np.random.default_rng(0)
PLEASE, BORE = ["fine", "joyful", "moving", "witty"], ["dull", "stale", "tired"]
OTHER = ["a", "the", "of", "film", "plot"]


def phrase(words: int) -> Tree:
    if words == 1:
        label = int(rng.integers(3))
        return Tree((0, 1, 1)[label], str(rng.choice((BORE, OTHER, PLEASE)[label])))
    if words == 2 and rng.random() < 0.5:
        right = phrase(1)
        return Tree(1 - right.label, "", Tree(1, "not"), right)
    left, right = phrase(words // 2), phrase(words - words // 2)
    return Tree(int(left.label and right.label), "", left, right)


if len(sys.argv) > 1 and Path(sys.argv[1]).exists():
    trees = [read(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    hidden, epochs = 128, 5
else:
    trees = [phrase(int(rng.integers(2, 9))) for _ in range(192)]
    hidden, epochs = 16, 8
classes = 1 + max(tree.label for tree in trees)
training, dev = trees[: -len(trees) // 4], trees[-len(trees) // 4 :]


def words_of(tree: Tree) -> list[str]:
    return [tree.word] if tree.left is None else words_of(tree.left) + words_of(tree.right)


vocabulary = {word: number for number, word in enumerate(sorted({w for tree in training for w in words_of(tree)}), 1)}

# %%
# The model
# ---------
# Written for one tree. ``forward`` returns the loss of all nodes of the tree, and what it takes the root for.


class TreeLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(vocabulary) + 1, hidden)
        self.leaf, self.inner = nn.Linear(hidden, 3 * hidden), nn.Linear(2 * hidden, 5 * hidden)
        self.readout = nn.Sequential(nn.Dropout(0.1), nn.Linear(hidden, classes))

    def word(self, number: int):
        i, o, u = self.leaf(self.embedding(torch.tensor(number))).chunk(3)
        c = torch.sigmoid(i) * torch.tanh(u)
        return torch.sigmoid(o) * torch.tanh(c), c

    def join(self, left, right):
        i, o, u, f, g = self.inner(torch.cat([left[0], right[0]])).chunk(5)
        c = torch.sigmoid(i) * torch.tanh(u) + torch.sigmoid(f) * left[1] + torch.sigmoid(g) * right[1]
        return torch.sigmoid(o) * torch.tanh(c), c

    def node(self, tree: Tree, losses: list):
        if tree.left is None:
            state = self.word(vocabulary.get(tree.word, 0))
        else:
            state = self.join(self.node(tree.left, losses)[0], self.node(tree.right, losses)[0])
        scores = self.readout(state[0])
        if self.training:
            losses.append(F.cross_entropy(scores, torch.tensor(tree.label)))
        return state, scores

    def forward(self, tree: Tree):
        losses: list = []
        _, scores = self.node(tree, losses)
        return torch.stack(losses).sum() if losses else None, scores


# %%
# The loop
# --------
# The loop that one has anyway. ``run`` is what runs a minibatch: the model on one tree after the other, or the same in
# batches. Dropout draws its masks from PyTorch's generator, in the model's own order, so that with the same seed both
# drop the same elements.


def train(model: nn.Module, run) -> tuple[list[float], list[float], float]:
    """The loss of each step, the accuracy on the other trees after each epoch, and the seconds of an epoch."""
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    losses, accuracy, seconds = [], [], []
    for epoch in range(epochs):
        begin = perf_counter()
        model.train()
        for first in range(0, len(training), 32):
            torch.manual_seed(first)
            results = run(training[first : first + 32])
            loss = torch.stack([one for one, _ in results]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        seconds.append(perf_counter() - begin)
        model.eval()
        with torch.no_grad():
            guesses = [int(scores.argmax()) for _, scores in run(dev)]
        accuracy.append(sum(guess == tree.label for guess, tree in zip(guesses, dev, strict=True)) / len(dev))
        print(f"epoch {epoch}: loss {losses[-1]:.3f}, {accuracy[-1]:.0%} of {len(dev)} trees", file=sys.stderr)
    return losses, accuracy, min(seconds)


torch.manual_seed(0)
model = TreeLSTM()
plain = copy.deepcopy(model)
fast = eb.autobatch(model, cells=["word", "join", "readout"])

eager = train(plain, lambda trees: [plain(tree) for tree in trees])
batched = train(model, fast)
print(f"an epoch of {len(training)} trees: {eager[2]:.2f} s eagerly, {batched[2]:.2f} s in batches")
print(f"{fast.batches} batches in the last call, {fast.reports[0].seconds['total'] * 1e3:.1f} ms")

# %%
# The curves are the same, up to rounding.

difference = max(abs(one - other) / other for one, other in zip(batched[0], eager[0], strict=True))
print(f"largest relative difference of a loss: {difference:.1e}")
assert difference < 1e-3
assert batched[0][-1] < 0.7 * batched[0][0]

figure, axes = plt.subplots(1, 2, figsize=(8, 3))
for (losses, accuracy, _), line, label in ((eager, "-", "eager"), (batched, "--", "batched")):
    axes[0].plot(losses, line, label=label)
    axes[1].plot(accuracy, line, label=label)
axes[0].set_xlabel("step")
axes[0].set_ylabel("loss of a tree")
axes[1].set_xlabel("epoch")
axes[1].set_ylabel("accuracy")
axes[0].legend()
figure.tight_layout()
plt.show()
