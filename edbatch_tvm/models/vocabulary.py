"""Word ids: the vocabulary is folded onto 256 rows, as the published evaluation of these workloads does."""

from __future__ import annotations

import zlib

VOCABULARY = 256
"""Rows of every embedding table."""


def word_id(word: str) -> int:
    """Row of the embedding table for `word`: the CRC-32 of its UTF-8 bytes modulo 256.

    A hash rather than the order of first appearance, so that a word has one id in every file.

    Examples
    --------
    >>> word_id("movie"), word_id("film")
    (111, 34)
    """
    return zlib.crc32(word.encode()) % VOCABULARY
