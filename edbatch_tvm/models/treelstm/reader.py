"""Reader of the Stanford Sentiment Treebank: a bracketed tree per line, ``(label left right)`` or ``(label word)``."""

from __future__ import annotations

import re
from pathlib import Path

from edbatch_tvm.models.line_reader import broken_line, read_lines
from edbatch_tvm.models.treelstm.build import JOIN
from edbatch_tvm.models.vocabulary import word_id
from edbatch_tvm.models.workload import ReadOptions

# Words of the treebank may hold no-break spaces, which \s would split.
_TOKEN = re.compile(r"[()]|[^() \t]+")
_LABELS = frozenset("01234")
_WORD = -1


def read_trees(path: str | Path, _: ReadOptions) -> list[list[int]]:
    """The trees of a file in postfix form, in file order; empty lines are passed over, labels dropped.

    Raises
    ------
    DataError
        Naming the file and the line that is no tree.
    """
    return [[symbol for symbol, _ in tree] for tree in read_labelled_trees(path)]


def read_labelled_trees(path: str | Path) -> list[list[tuple[int, int]]]:
    """The trees of a file in postfix form, each symbol with the label of its node.

    Raises
    ------
    DataError
        Naming the file and the line that is no tree.
    """
    trees = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            trees.append(parse_labelled_tree(line))
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
    postfix: list[tuple[int, int]] = []
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
            postfix.append((word_id(token), labels[-1]))
    if parts or not postfix:
        raise ValueError(f"{len(parts)} brackets are not closed")
    return postfix
