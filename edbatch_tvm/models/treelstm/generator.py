"""Random parse trees with the shapes of the Stanford Sentiment Treebank.

Measured on its training trees: 19.1 leaves on average (standard deviation 9.3), from 2 to 52; 10.8 nodes on the
longest way from the root to a leaf (deviation 3.9), at most 30. Trees are skewed: the left or right part of a phrase
is a single word far more often than even splits would make it (:data:`_SINGLE`).
"""

from __future__ import annotations

import numpy as np

from edbatch_tvm.models.treelstm.build import JOIN
from edbatch_tvm.models.vocabulary import VOCABULARY

_SINGLE = ((3, 0.77, 0.23), (5, 0.65, 0.16), (9, 0.52, 0.165), (19, 0.44, 0.19), (52, 0.36, 0.28))
"""For phrases of up to this many words: how often the left part is a single word, and how often the right one is.

As measured, but for the last row: there 0.305 and 0.235 were found, which leave the trees too shallow by a twentieth.
"""


def random_trees(count: int, seed: int = 0) -> list[list[int]]:
    """`count` random trees in postfix form."""
    rng = np.random.default_rng(seed)
    leaves = rng.gamma(4.2, 4.55, count).round().clip(2, 52).astype(int)
    return [random_tree(size, rng) for size in leaves.tolist()]


def random_tree(leaves: int, rng: np.random.Generator) -> list[int]:
    """A random tree with this number of leaves, in postfix form."""
    prefix: list[int] = []  # the root, then the right subtree, then the left: the postfix form backwards
    pending = [leaves]
    while pending:
        size = pending.pop()
        if size == 1:
            prefix.append(int(rng.integers(VOCABULARY)))
            continue
        left = _left_part(size, rng)
        prefix.append(JOIN)
        pending += [left, size - left]
    return prefix[::-1]


def _left_part(size: int, rng: np.random.Generator) -> int:
    if size == 2:
        return 1
    _, left_single, right_single = next(row for row in _SINGLE if size <= row[0])
    draw = rng.random()
    if draw < left_single:
        return 1
    if draw < left_single + right_single or size == 3:
        return size - 1
    return int(rng.integers(2, size - 1))
