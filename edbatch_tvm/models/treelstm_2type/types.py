"""Types of internal nodes: a fair coin for each, by the seed of the run.

Trees are those of ``treelstm``, read or generated; the coins are tossed in the order of the trees.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from edbatch_tvm.models.flat_items import FlatSequences
from edbatch_tvm.models.labelled import Labels
from edbatch_tvm.models.treelstm.build import JOIN
from edbatch_tvm.models.treelstm.generator import random_trees
from edbatch_tvm.models.treelstm.reader import read_sentiments, read_tree_arrays, read_trees
from edbatch_tvm.models.treelstm_2type.build import JOIN_A, JOIN_B
from edbatch_tvm.models.workload import ReadOptions

Symbol = TypeVar("Symbol", int, str | int)

_COINS = 2
"""Sets the stream of the coins apart from the one that the shapes of generated trees come from."""


def read_typed_trees(path: str | Path, options: ReadOptions) -> list[list[int]]:
    """The trees of a file in postfix form, with types by ``options.seed``."""
    return typed(read_trees(path, options), options.seed)


def read_typed_arrays(path: str | Path, options: ReadOptions) -> FlatSequences | None:
    """The same in arrays; None where :func:`read_typed_trees` is to read the file."""
    trees = read_tree_arrays(path, options)
    if trees is None:
        return None
    rng = np.random.default_rng([options.seed, _COINS])
    sizes = np.diff(trees.ptr)
    # As in typed(): a coin for every symbol, of which the internal nodes of a tree take the first.
    coins = np.concatenate([rng.integers(2, size=size) for size in sizes.tolist()] or [np.empty(0, np.int64)])
    joins = trees.values == JOIN
    before = np.cumsum(joins) - joins
    begin = np.repeat(trees.ptr[:-1], sizes)
    number = before - before[begin]  # of a node among the internal nodes of its tree
    types = np.array([JOIN_A, JOIN_B], np.int32)[coins[begin + number]]
    return FlatSequences(np.where(joins, types, trees.values), trees.ptr)


def read_typed_sentiments(path: str | Path, options: ReadOptions) -> list[tuple[list[str | int], Labels]]:
    """The trees of a file in postfix form, with words and types; and the labels of their nodes."""
    trees = read_sentiments(path, options)
    types = typed([tree for tree, _ in trees], options.seed)
    return [(tree, labels) for tree, (_, labels) in zip(types, trees, strict=True)]


def random_typed_trees(count: int, seed: int = 0) -> list[list[int]]:
    """`count` random trees in postfix form, with types."""
    return typed(random_trees(count, seed), seed)


def typed(trees: Iterable[Sequence[Symbol]], seed: int) -> list[list[Symbol]]:
    """`trees` with one of two symbols for every internal node."""
    rng = np.random.default_rng([seed, _COINS])
    result: list[list[Symbol]] = []
    for postfix in trees:
        coins = iter(rng.integers(2, size=len(postfix)).tolist())
        result.append([symbol if symbol != JOIN else (JOIN_A, JOIN_B)[next(coins)] for symbol in postfix])
    return result
