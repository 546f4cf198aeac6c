"""Random word lattices with the shapes of those over Chinese sentences.

Measured on the 1,147 training lattices: 44.1 nodes on average (standard deviation 27.7), from 3 to 211; 0.53 word arcs
and 0.47 joins a node. Each node has the arc of its character; whether words end at a node too depends on whether any
did at the node before (41 % if so, 57 % if not), and :data:`_SPANS` are the lengths of the words that end together.
"""

from __future__ import annotations

import numpy as np

from edbatch_tvm.models.lattice_lstm.build import Arc
from edbatch_tvm.models.vocabulary import VOCABULARY

_WORD_AFTER_NONE, _WORD_AFTER_WORD = 0.571, 0.411
_SPANS = {
    (2,): 20404,
    (2, 3): 2094,
    (3,): 610,
    (2, 4): 220,
    (2, 3, 4): 195,
    (4,): 91,
    (2, 3, 5): 51,
    (2, 5): 41,
    (3, 4): 21,
    (2, 3, 6): 14,
}
"""Lengths of the words that end at one node, and how often (the most frequent ten)."""


def random_lattices(count: int, seed: int = 0) -> list[list[list[Arc]]]:
    """`count` random lattices."""
    rng = np.random.default_rng(seed)
    sizes = rng.gamma(2.54, 17.4, count).round().clip(3, 211).astype(int)
    return [random_lattice(size, rng) for size in sizes.tolist()]


def random_lattice(nodes: int, rng: np.random.Generator) -> list[list[Arc]]:
    """The arcs into each node of a random lattice."""
    choices, weights = list(_SPANS), np.array(list(_SPANS.values()))
    drawn = rng.choice(len(choices), size=nodes, p=weights / weights.sum()).tolist()
    incoming: list[list[Arc]] = [[]]
    word_ended = False
    for node in range(1, nodes):
        spans = [1]
        if rng.random() < (_WORD_AFTER_WORD if word_ended else _WORD_AFTER_NONE):
            spans += [span for span in choices[drawn[node]] if span <= node]
        word_ended = len(spans) > 1
        incoming.append([(node - span, int(rng.integers(VOCABULARY))) for span in spans])
    return incoming
