"""Reader of the Stanford Sentiment Treebank: a bracketed tree per line, ``(label left right)`` or ``(label word)``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from edbatch_tvm.models.flat_items import FlatSequences
from edbatch_tvm.models.labelled import Labels, Number
from edbatch_tvm.models.line_reader import broken_line, read_lines, read_text
from edbatch_tvm.models.native_reader import native_reader
from edbatch_tvm.models.treelstm.build import JOIN
from edbatch_tvm.models.vocabulary import word_id
from edbatch_tvm.models.workload import ReadOptions

# Words of the treebank may hold no-break spaces, which \s would split.
_TOKEN = re.compile(r"[()]|[^() \t]+")
_LABELS = frozenset("01234")
_WORD = -1

Tree = TypeVar("Tree")


def read_trees(path: str | Path, _: ReadOptions) -> list[list[int]]:
    """The trees of a file in postfix form, in file order; empty lines are passed over, labels dropped.

    Raises
    ------
    DataError
        Naming the file and the line that is no tree.
    """
    return [[symbol for symbol, _ in tree] for tree in read_labelled_trees(path)]


def read_tree_arrays(path: str | Path, _: ReadOptions) -> FlatSequences | None:
    """The same in arrays; None where :func:`read_trees` is to read the file."""
    found = read_labelled_arrays(path)
    return None if found is None else found[0]


def read_labelled_arrays(path: str | Path) -> tuple[FlatSequences, np.ndarray] | None:
    """The trees of a file in postfix form and the labels of all nodes, in arrays.

    None where there is no compiled reader, or the file is not as it should be.
    """
    native = native_reader()
    return None if native is None else native.trees(read_text(path)[0])


def read_labelled_trees(path: str | Path) -> list[list[tuple[int, int]]]:
    """The trees of a file in postfix form, each symbol with the label of its node.

    Raises
    ------
    DataError
        Naming the file and the line that is no tree.
    """
    return _read(path, parse_labelled_tree)


def read_sentiments(path: str | Path, _: ReadOptions) -> list[tuple[list[str | int], Labels]]:
    """The trees of a file in postfix form, with words; and the labels of their nodes.

    Raises
    ------
    DataError
        Naming the file and the line that is no tree.
    """
    return [([symbol for symbol, _ in tree], [str(label) for _, label in tree]) for tree in read_worded_trees(path)]


def numbered_tree(tree: list[str | int], number: Number) -> list[int]:
    """A tree in postfix form, with rows in place of words."""
    return [number("word", symbol) if isinstance(symbol, str) else symbol for symbol in tree]


def read_worded_trees(path: str | Path) -> list[list[tuple[str | int, int]]]:
    """As :func:`read_labelled_trees`, with words in place of their ids.

    Raises
    ------
    DataError
        Naming the file and the line that is no tree.
    """
    return _read(path, parse_worded_tree)


def _read(path: str | Path, parse: Callable[[str], Tree]) -> list[Tree]:
    trees = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            trees.append(parse(line))
        except ValueError as error:
            raise broken_line(path, number, str(error), "one tree, (label left right) or (label word)") from None
    return trees


def parse_tree(line: str) -> list[int]:
    """The bracketed tree of `line` in postfix form; labels are checked and dropped.

    Raises
    ------
    ValueError
        Saying what is wrong with the line.

    Examples
    --------
    >>> parse_tree("(3 (2 good) (2 movie))")
    [146, 111, -1]
    """
    return [symbol for symbol, _ in parse_labelled_tree(line)]


def parse_labelled_tree(line: str) -> list[tuple[int, int]]:
    """The bracketed tree of `line` in postfix form, each symbol with the label of its node.

    Raises
    ------
    ValueError
        Saying what is wrong with the line.
    """
    return [
        (word_id(symbol) if isinstance(symbol, str) else symbol, label) for symbol, label in parse_worded_tree(line)
    ]


def parse_worded_tree(line: str) -> list[tuple[str | int, int]]:
    """As :func:`parse_labelled_tree`, with words in place of their ids.

    Raises
    ------
    ValueError
        Saying what is wrong with the line.

    Examples
    --------
    >>> parse_worded_tree("(3 (2 good) (2 movie))")
    [('good', 2), ('movie', 2), (-1, 3)]
    """
    postfix: list[tuple[str | int, int]] = []
    parts: list[int] = []  # of each open bracket: subtrees so far, or _WORD
    labels: list[int] = []
    tokens = iter(_TOKEN.findall(line))
    for token in tokens:
        if postfix and not parts:
            raise ValueError(f"{token!r} after the end of the tree")
        if token == "(":
            label = next(tokens, "the end of the line")
            if label not in _LABELS:
                raise ValueError(f"{label!r} in place of a label from 0 to 4")
            if parts:
                if parts[-1] in (_WORD, 2):
                    raise ValueError("a node of more than two parts, or of a word and a subtree")
                parts[-1] += 1
            parts.append(0)
            labels.append(int(label))
        elif not parts:
            raise ValueError(f"{token!r} outside of brackets")
        elif token == ")":
            count, own_label = parts.pop(), labels.pop()
            if count == 2:
                postfix.append((JOIN, own_label))
            elif count != _WORD:
                raise ValueError(f"a node of {count} parts and no word")
        elif parts[-1] != 0:
            raise ValueError(f"the word {token!r} in a node that has another part")
        else:
            parts[-1] = _WORD
            postfix.append((token, labels[-1]))
    if parts or not postfix:
        raise ValueError(f"{len(parts)} brackets are not closed")
    return postfix
