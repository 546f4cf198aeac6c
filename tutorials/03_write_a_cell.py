"""
Write a cell, batch it, read the schedule
=========================================

A GRU that runs over a sentence in both directions and tags every word: three cells, and what a schedule of them says.
"""

# %%
# Cells
# -----
# Operators are Relax's, as in ``R.matmul`` or ``R.sigmoid``; several outputs are a tuple. The r of a GRU is multiplied
# with h before the second product, so this cell is two *stages*: a stage is some products on rows that are ready, with
# the element-wise code behind them, and becomes one kernel.

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.errors import EdbatchError

H, WORDS, TAGS = 64, 500, 7


@I.ir_module
class Tagger:
    @R.function
    def forward(
        h: R.Tensor((H,), "float32"),
        word: R.Tensor((), "int32"),
        embedding: R.Tensor((WORDS, H), "float32"),
        W_f: R.Tensor((2 * H, 2 * H), "float32"),
        U_f: R.Tensor((2 * H, H), "float32"),
    ):
        R.func_attr({"num_input": 2})
        x = R.take(embedding, word, axis=0)
        rz = R.split(R.sigmoid(R.matmul(R.concat([x, h], axis=0), W_f)), 2, axis=0)
        n = R.tanh(R.matmul(R.concat([x, R.multiply(rz[0], h)], axis=0), U_f))
        h_next = R.add(n, R.multiply(rz[1], R.subtract(h, n)))
        return h_next

    @R.function
    def backward(
        h: R.Tensor((H,), "float32"),
        word: R.Tensor((), "int32"),
        embedding: R.Tensor((WORDS, H), "float32"),
        W_b: R.Tensor((2 * H, 2 * H), "float32"),
        U_b: R.Tensor((2 * H, H), "float32"),
    ):
        R.func_attr({"num_input": 2})
        x = R.take(embedding, word, axis=0)
        rz = R.split(R.sigmoid(R.matmul(R.concat([x, h], axis=0), W_b)), 2, axis=0)
        n = R.tanh(R.matmul(R.concat([x, R.multiply(rz[0], h)], axis=0), U_b))
        h_next = R.add(n, R.multiply(rz[1], R.subtract(h, n)))
        return h_next

    @R.function
    def tag(
        left: R.Tensor((H,), "float32"),
        right: R.Tensor((H,), "float32"),
        V: R.Tensor((2 * H, TAGS), "float32"),
    ):
        R.func_attr({"num_input": 2})
        scores = R.matmul(R.concat([left, right], axis=0), V)
        return scores


rng = np.random.default_rng(0)
shapes = {"embedding": (WORDS, H), "V": (2 * H, TAGS)}
shapes |= {f"W_{d}": (2 * H, 2 * H) for d in "fb"} | {f"U_{d}": (2 * H, H) for d in "fb"}
weights = {name: (rng.normal(size=shape) / np.sqrt(shape[0])).astype("float32") for name, shape in shapes.items()}
model = eb.compile(Tagger, weights)
print(model.signature)
print(model.paths)

# %%
# A call that does not fit the cell is an error that says what was expected:

builder = model.builder()
try:
    builder.call("tag", builder.zero, V=3)
except EdbatchError as error:
    print(error)

# %%
# Instances
# ---------
# The first state is the zero state; nothing has to be stored for it.


def tagged(sentence: np.ndarray) -> eb.InstanceGraph:
    """The graph of a sentence; its result is a list of scores, one for each word."""
    b = model.builder()
    left, right = [], []
    h = b.zero
    for word in sentence:
        h = b.call("forward", h, word=word)
        left.append(h)
    h = b.zero
    for word in reversed(sentence):
        h = b.call("backward", h, word=word)
        right.append(h)
    return b.finish([b.call("tag", f, g) for f, g in zip(left, reversed(right), strict=True)])


lengths = rng.integers(3, 25, size=16)
result = model([tagged(rng.integers(WORDS, size=length)) for length in lengths])
print(len(result[0]), "words in the first sentence, scores of the first word", result[0][0])

# %%
# The schedule
# ------------
# One line per batch: the type, and the nodes as ranges. All sentences take a step in one batch.

print("\n".join(line[:100] for line in str(result.schedule).splitlines()[:6]))

# %%
# ``result.report`` has the counts. The lower bound is the longest chain of each cell, added up: the longest sentence in
# both directions and one batch of tags.

print(result.report)
assert result.report.batches == result.report.lower_bound == 2 * max(lengths) + 1

# %%
# What kept a cell from fewer batches is a question of its own. ``forward`` and ``backward`` call the same operators and
# yet never share a batch, because they have weights of their own:

print(eb.explain(model, [tagged(rng.integers(WORDS, size=length)) for length in lengths]))

# %%
# Two policies
# ------------
# TensorFlow Fold's rule, nodes of equal depth, needs a batch of tags for each depth at which a word is tagged. A box
# is a batch; its height is its number of nodes.

figure, axes = plt.subplots(2, 1, figsize=(9, 3.6), sharex=True, layout="constrained")
for axis, policy in zip(axes, ("depth", "lookahead"), strict=True):
    schedule, info = eb.schedule(result.graph, policy=policy)
    for at, (kind, nodes) in enumerate(schedule):
        axis.bar(at, len(nodes), width=0.9, color=["#4e79a7", "#f28e2b", "#59a14f"][kind])
    axis.set(ylabel="nodes", title=f"{policy}: {info.batches} batches, bound {info.lower_bound}", yscale="log")
axes[1].set_xlabel("batch")
boxes = [plt.Rectangle((0, 0), 1, 1, color=c) for c in ("#4e79a7", "#f28e2b", "#59a14f")]
axes[1].legend(boxes, model.signature.names, ncols=3, frameon=False, loc="upper left")
plt.show()
