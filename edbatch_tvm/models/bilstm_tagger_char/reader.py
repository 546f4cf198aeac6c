"""Reader of tagged sentences for a tagger that spells rare words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from edbatch_tvm.models.bilstm_tagger.reader import read_words
from edbatch_tvm.models.bilstm_tagger_char.build import Token
from edbatch_tvm.models.vocabulary import word_id
from edbatch_tvm.models.workload import ReadOptions

FREQUENT = 5
"""Words seen fewer times are spelled."""


def read_spelled_sentences(path: str | Path, options: ReadOptions) -> list[list[Token]]:
    """The sentences of a file, in file order; words are counted on ``options.count_on``, else on the file itself.

    Raises
    ------
    DataError
        Naming the file and the line that is no tagged sentence.
    """
    sentences = read_words(path)
    counted = sentences if options.count_on is None else read_words(options.count_on)
    seen = Counter(word for sentence in counted for word in sentence)
    return [
        [word_id(word) if seen[word] >= FREQUENT else tuple(map(word_id, word)) for word in sentence]
        for sentence in sentences
    ]
