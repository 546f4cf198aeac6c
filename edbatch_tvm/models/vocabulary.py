"""Word ids: folded onto 256 rows, as the published evaluation of these workloads does; or counted, for training."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable

VOCABULARY = 256
"""Rows of every embedding table, but of those of trained models."""


def word_id(word: str) -> int:
    """Row of the embedding table for `word`: the CRC-32 of its UTF-8 bytes modulo 256.

    A hash rather than the order of first appearance, so that a word has one id in every file.

    Examples
    --------
    >>> word_id("movie"), word_id("film")
    (111, 34)
    """
    return zlib.crc32(word.encode()) % VOCABULARY


class Vocabulary:
    """Words with a row of a table each. Row 0 is that of any other word.

    Parameters
    ----------
    words : iterable of str
        In the order of their rows, from 1.

    Examples
    --------
    >>> vocabulary = Vocabulary.counted(Counter("abacab"), 2)
    >>> vocabulary.words, vocabulary.row("a"), vocabulary.row("c")
    (('a', 'b'), 1, 0)
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)
        self._rows = {word: row for row, word in enumerate(self.words, 1)}

    @classmethod
    def counted(cls, counts: Counter[str], most: int | None = None) -> Vocabulary:
        """The words of `counts`, or the `most` frequent of them; of equally frequent ones those counted first."""
        return cls(word for word, _ in counts.most_common(most))

    def __len__(self) -> int:
        """The number of rows."""
        return 1 + len(self.words)

    def row(self, word: str) -> int:
        """The row of a word."""
        return self._rows.get(word, 0)
