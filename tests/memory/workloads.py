"""Minibatch graphs of sentences and trees, without cells: only the shapes of values matter to a plan."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.graph import Attribute, Builder, CellSignature, InstanceGraph, Operand, Signature, ValueSpec, merge

STATE, LOGITS = ValueSpec((8,)), ValueSpec((3,))
WORD = (Attribute("word", ValueSpec((), "int32"), 10),)


def cell(name: str, operands: str, words: bool = False, outputs: int = 2) -> CellSignature:
    """A cell with these operands of the state's shape; with one output it is a readout."""
    results = (STATE,) * outputs if outputs > 1 else (LOGITS,)
    return CellSignature(name, tuple(Operand(o, STATE) for o in operands.split()), WORD if words else (), results)


TAGGER = Signature(
    [
        *(cell(f"{side}{layer}", operands, words=layer == 1)
          for side in ("forward", "backward") for layer, operands in ((1, "h c"), (2, "x h c"))),
        cell("tag", "forward backward", outputs=1),
    ]
)  # fmt: skip

TREE = Signature(
    [cell("leaf", "", words=True), cell("internal", "h1 c1 h2 c2"), cell("readout", "h", outputs=1)]
)  # fmt: skip


def sentence(length: int) -> InstanceGraph:
    """Two stacked LSTMs in each direction, and a tag for each token."""
    b = Builder(TAGGER)
    tops = []
    for side in ("forward", "backward"):
        h1 = c1 = h2 = c2 = b.zero
        top = []
        for _ in range(length):
            h1, c1 = b.call(f"{side}1", h1, c1, word=1)
            h2, c2 = b.call(f"{side}2", h1, h2, c2)
            top.append(h2)
        tops.append(top)
    return b.finish([b.call("tag", *pair) for pair in zip(tops[0], reversed(tops[1]), strict=True)])


def tree(rng: np.random.Generator, leaves: int) -> InstanceGraph:
    """A random binary tree with a readout at every node."""
    b = Builder(TREE)
    roots = [b.call("leaf", word=1) for _ in range(leaves)]
    states = list(roots)
    while len(roots) > 1:
        at = int(rng.integers(len(roots) - 1))
        roots[at : at + 2] = [b.call("internal", *roots[at], *roots[at + 1])]
        states.append(roots[at])
    return b.finish([b.call("readout", h) for h, _ in states])


def sentences(rng: np.random.Generator, count: int = 64) -> InstanceGraph:
    """A minibatch of sentences of 1 to 40 tokens."""
    return merge([sentence(int(length)) for length in rng.integers(1, 41, count)])


def trees(rng: np.random.Generator, count: int = 64) -> InstanceGraph:
    """A minibatch of trees of 2 to 39 leaves."""
    return merge([tree(rng, int(leaves)) for leaves in rng.integers(2, 40, count)])
