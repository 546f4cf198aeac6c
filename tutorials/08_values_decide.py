"""
A parser whose structure depends on values
==========================================

A shift-reduce parser reads a sentence word by word and decides by a score whether to shift the next word or to join
the two trees on top of its stack. What it computes next depends on what it has just computed, so its graph cannot be
built beforehand. Batches are still there to be had: of all sentences that are in flight.
"""

# %%
# The parser
# ----------
# One sentence at a time, as one would write it: a stack, a loop, and a branch on ``argmax``.

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import edbatch_tvm as eb

H, VOCABULARY = 32, 100


class Parser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, H)
        self.tree = nn.GRUCell(H, H)
        self.scorer = nn.Sequential(nn.Linear(3 * H, H), nn.Tanh(), nn.Linear(H, 2))

    def shift(self, word: int):
        return torch.tanh(self.embedding(torch.tensor(word)))

    def join(self, left, right):
        return self.tree(right, left)

    def score(self, below, top, following):
        return self.scorer(torch.cat([below, top, following]))

    def forward(self, words: list[int]):
        following = [self.shift(word) for word in words]
        stack, actions = [], ""
        while following or len(stack) > 1:
            if len(stack) < 2:
                action = "S"
            elif not following:
                action = "J"
            else:
                scores = self.score(stack[-2], stack[-1], following[0])
                action = "SJ"[scores.argmax().item()]  # a value is read here
            actions += action
            if action == "S":
                stack.append(following.pop(0))
            else:
                right = stack.pop()
                stack.append(self.join(stack.pop(), right))
        return actions, stack[0]


# %%
# In batches
# ----------
# Every sentence runs until it reads a value. When all of them wait, everything recorded so far runs in batches, and
# they go on together; sentences that are done drop out.

torch.manual_seed(0)
parser = Parser().eval().requires_grad_(False)
rng = np.random.default_rng(0)
sentences = [rng.integers(VOCABULARY, size=rng.integers(5, 20)).tolist() for _ in range(64)]

fast = eb.autobatch(parser, cells=["shift", "join", "score"])
fast(sentences)
parsed = fast(sentences)
for actions, _ in parsed[:4]:
    print(actions)

expected = [parser(words) for words in sentences]
assert [actions for actions, _ in parsed] == [actions for actions, _ in expected]
error = max((one - other).abs().max().item() for (_, one), (_, other) in zip(parsed, expected, strict=True))
steps = sum(len(actions) for actions, _ in parsed)
print(f"largest difference from PyTorch: {error:.1e}")
assert error < 1e-5
print(f"{steps} actions of {len(sentences)} sentences in {fast.batches} batches")

# %%
# Every report in ``fast.reports`` is one such round. At first all sentences take part; towards the end the long ones
# are among themselves.

calls = [report.calls for report in fast.reports]
batches = [report.batches for report in fast.reports]
figure, axes = plt.subplots(figsize=(6, 3.5))
axes.bar(range(len(calls)), calls, label="cell calls")
axes.plot(range(len(calls)), batches, "k.-", label="batches")
axes.set_yscale("log")
axes.set_xlabel("round")
axes.legend()
figure.tight_layout()
plt.show()
