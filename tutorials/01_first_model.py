"""
Batch your first model
======================

A tree network calls one cell at every leaf and one at every inner node. Every tree is another graph, so there is
nothing to stack into a tensor, and running node by node leaves the machine idle. Here the cells are written once, for
one instance; the batching is found.
"""

# %%
# The cells
# ---------
# A cell is a Relax function in TVMScript. ``num_input`` says how many parameters belong to the instance; the others
# are weights. An operand whose first extent is a symbol, here ``k``, takes any number of values: a node has as many
# children as it likes. ``H`` is a symbolic size, which becomes a number when the weights are known.

from __future__ import annotations

from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb


@I.ir_module
class Tree:
    @R.function
    def leaf(word: R.Tensor((), "int32"), embedding: R.Tensor((1000, "H"), "float32")):
        R.func_attr({"num_input": 1})
        h = R.take(embedding, word, axis=0)
        return h

    @R.function
    def node(children: R.Tensor(("k", "H"), "float32"), W: R.Tensor(("H", "H"), "float32")):
        R.func_attr({"num_input": 1})
        h = R.tanh(R.matmul(R.sum(children, axis=0), W))
        return h


H = 128
rng = np.random.default_rng(0)
weights = {
    "embedding": rng.normal(size=(1000, H)).astype("float32"),
    "W": (rng.normal(size=(H, H)) / np.sqrt(H)).astype("float32"),
}
model = eb.compile(Tree, weights)
print(model.signature)

# %%
# The instances
# -------------
# A builder is called like the model would be, and records the graph. Here a tree is a nested list of words.


def random_tree(leaves: int) -> list | int:
    """A tree with this number of leaves; its inner nodes have two or three children."""
    if leaves == 1:
        return int(rng.integers(1000))
    parts = min(leaves, int(rng.integers(2, 4)))
    cuts = np.sort(rng.choice(np.arange(1, leaves), parts - 1, replace=False))
    return [random_tree(int(size)) for size in np.diff([0, *cuts, leaves])]


def build(builder: eb.Builder, tree: list | int):
    """The state of the root of `tree`."""
    if isinstance(tree, int):
        return builder.call("leaf", word=tree)
    return builder.call("node", [build(builder, child) for child in tree])


trees = [random_tree(int(rng.integers(5, 30))) for _ in range(64)]
builder = model.builder()
instances = [builder.finish(build(builder, tree)) for tree in trees]
print(builder.finish(build(builder, [[1, 2], 3])))

# %%
# Run
# ---
# A minibatch is a list of instances; ``result[i]`` is what instance i declared in ``finish``. The first run allocates,
# so the second is the one to look at.

model(instances)
result = model(instances)
print(result[0].shape, result[0][:4])
print(result.report)

# %%
# Right?
# ------
# The same in plain NumPy, one node at a time:


def reference(tree: list | int) -> np.ndarray:
    """State of the root in float64."""
    if isinstance(tree, int):
        return weights["embedding"][tree].astype("float64")
    return np.tanh(sum(map(reference, tree)) @ weights["W"].astype("float64"))


error = max(np.abs(result[i] - reference(tree)).max() for i, tree in enumerate(trees))
print(f"largest difference {error:.1e}")
assert error < 1e-5

# %%
# Worth it?
# ---------
# The nodes of all instances share batches, so the number of batches grows with the deepest tree and not with the number
# of trees.


def seconds(minibatch: list, repeat: int = 5) -> float:
    """Least time of a few runs."""
    times = []
    for _ in range(repeat):
        begin = perf_counter()
        model(minibatch)
        times.append(perf_counter() - begin)
    return min(times)


sizes = [1, 2, 4, 8, 16, 32, 64]
rates = [size / seconds(instances[:size]) for size in sizes]
batches = [len(model(instances[:size]).schedule) for size in sizes]
nodes = [sum(len(instance) for instance in instances[:size]) for size in sizes]

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
left.plot(sizes, rates, marker="o", color="#4e79a7")
left.set(xscale="log", yscale="log", xlabel="instances of a minibatch", ylabel="instances a second", xticks=sizes)
left.set_xticklabels(sizes)
right.plot(sizes, nodes, marker="o", color="#bab0ac", label="nodes")
right.plot(sizes, batches, marker="o", color="#f28e2b", label="batches")
right.set(xscale="log", yscale="log", xlabel="instances of a minibatch", xticks=sizes)
right.set_xticklabels(sizes)
right.legend(frameon=False)
plt.show()
