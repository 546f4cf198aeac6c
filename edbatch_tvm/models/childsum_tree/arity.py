"""Trees of any arity out of binary ones: a phrase is merged into the phrase it is part of.

The binary form of the treebank comes from trees of any arity. As far as its labels tell, a phrase is merged into its
parent where both have the same sentiment. On the training trees that are 55 % of the phrases; what remains has 3.08
parts on average, from 2 to 32, and 6.4 nodes on the longest way from the root to a leaf. The generator merges the
phrases of generated trees by a coin with that chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from edbatch_tvm.models.flat_items import FlatSequences
from edbatch_tvm.models.labelled import Labels
from edbatch_tvm.models.native_reader import native_reader
from edbatch_tvm.models.treelstm.build import JOIN
from edbatch_tvm.models.treelstm.generator import random_trees
from edbatch_tvm.models.treelstm.reader import read_labelled_arrays, read_labelled_trees, read_worded_trees
from edbatch_tvm.models.workload import ReadOptions

Symbol = TypeVar("Symbol", int, str | int)

_MERGED = 0.55
_COINS = 3
"""Sets the stream of the coins apart from the one that the shapes of generated trees come from."""


def read_flat_trees(path: str | Path, _: ReadOptions) -> list[list[int]]:
    """The trees of a file in the postfix form of :func:`flat`."""
    return [_merged(labelled)[0] for labelled in read_labelled_trees(path)]


def read_flat_tree_arrays(path: str | Path, _: ReadOptions) -> FlatSequences | None:
    """The same in arrays; None where :func:`read_flat_trees` is to read the file."""
    native, found = native_reader(), read_labelled_arrays(path)
    return None if native is None or found is None else native.merged(*found)


def read_flat_sentiments(path: str | Path, _: ReadOptions) -> list[tuple[list[str | int], Labels]]:
    """The trees of a file in the postfix form of :func:`flat`, with words; and the labels of their nodes."""
    return [_merged(labelled) for labelled in read_worded_trees(path)]


def _merged(labelled: Sequence[tuple[Symbol, int]]) -> tuple[list[Symbol], list[str]]:
    """A tree with the phrases merged that have the sentiment of their parents; and the labels of its nodes."""
    symbols = [symbol for symbol, _ in labelled]
    labels = [label for _, label in labelled]
    merged = [parent >= 0 and labels[parent] == labels[node] for node, parent in enumerate(parents(symbols))]
    kept = [not merge or symbol != JOIN for symbol, merge in zip(symbols, merged, strict=True)]
    return flat(symbols, merged), [str(label) for label, keep in zip(labels, kept, strict=True) if keep]


def random_flat_trees(count: int, seed: int = 0) -> list[list[int]]:
    """`count` random trees in the postfix form of :func:`flat`."""
    rng = np.random.default_rng([seed, _COINS])
    return [flat(tree, (rng.random(len(tree)) < _MERGED).tolist()) for tree in random_trees(count, seed)]


def parents(postfix: Sequence[str | int]) -> list[int]:
    """The parent of every node of a binary tree in postfix form; -1 for the root.

    Examples
    --------
    >>> parents([7, 8, JOIN, 9, JOIN])
    [2, 2, 4, 4, -1]
    """
    found = [-1] * len(postfix)
    stack: list[int] = []
    for node, symbol in enumerate(postfix):
        if symbol == JOIN:
            found[stack.pop()] = found[stack.pop()] = node
        stack.append(node)
    return found


def flat(postfix: Sequence[Symbol], merged: Sequence[bool]) -> list[Symbol]:
    """A binary tree in postfix form with some phrases merged into their parents.

    Parameters
    ----------
    postfix : sequence of int
        Word ids, and JOIN for a phrase.
    merged : sequence of bool
        Of each phrase, whether its parts become parts of its parent; not looked at for words and the root.

    Returns
    -------
    list of int
        Word ids, and -k for a phrase of k parts.

    Examples
    --------
    >>> flat([7, 8, JOIN, 9, JOIN], [False] * 5), flat([7, 8, JOIN, 9, JOIN], [True] * 5)
    ([7, 8, -2, 9, -2], [7, 8, 9, -3])
    """
    result: list[Symbol] = []
    stack: list[int] = []  # of each subtree: its parts if it is merged, else 1
    for node, (symbol, merge) in enumerate(zip(postfix, merged, strict=True)):
        if symbol != JOIN:
            result.append(symbol)
            stack.append(1)
            continue
        parts = stack.pop() + stack.pop()
        if merge and node < len(postfix) - 1:
            stack.append(parts)
        else:
            result.append(-parts)
            stack.append(1)
    return result
