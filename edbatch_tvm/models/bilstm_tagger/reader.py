"""Reader of tagged sentences in the form of WikiNER: ``word|TAG word|TAG ...``, one sentence per line."""

from __future__ import annotations

from pathlib import Path

from edbatch_tvm.models.flat_items import FlatSequences
from edbatch_tvm.models.labelled import Labels, Number
from edbatch_tvm.models.line_reader import broken_line, read_lines, read_text
from edbatch_tvm.models.native_reader import native_reader
from edbatch_tvm.models.vocabulary import word_id
from edbatch_tvm.models.workload import ReadOptions


def read_sentences(path: str | Path, _: ReadOptions) -> list[list[int]]:
    """Word ids of the sentences of a file, in file order; empty lines are passed over, tags dropped.

    Raises
    ------
    DataError
        Naming the file and the line that is no tagged sentence.
    """
    return [[word_id(word) for word in sentence] for sentence in read_words(path)]


def read_sentence_arrays(path: str | Path, _: ReadOptions) -> FlatSequences | None:
    """The same in arrays; None where :func:`read_sentences` is to read the file."""
    native = native_reader()
    lines = None if native is None else native.lines(read_text(path)[0], tagged=True)
    return None if lines is None else lines.without_empty()


def read_tags(path: str | Path, _: ReadOptions) -> list[tuple[list[str], Labels]]:
    """The words of the sentences of a file, in file order, and their tags.

    Raises
    ------
    DataError
        Naming the file and the line that is no tagged sentence.
    """
    return [([word for word, _ in sentence], [tag for _, tag in sentence]) for sentence in read_tagged_words(path)]


def numbered_words(words: list[str], number: Number) -> list[int]:
    """A sentence, with rows in place of words."""
    return [number("word", word) for word in words]


def read_words(path: str | Path) -> list[list[str]]:
    """Words of the sentences of a file, in file order.

    Raises
    ------
    DataError
        Naming the file and the line that is no tagged sentence.
    """
    return [[word for word, _ in sentence] for sentence in read_tagged_words(path)]


def read_tagged_words(path: str | Path) -> list[list[tuple[str, str]]]:
    """The sentences of a file, in file order, each word with its tag.

    Raises
    ------
    DataError
        Naming the file and the line that is no tagged sentence.
    """
    sentences = []
    for number, line in enumerate(read_lines(path), 1):
        words = []
        for token in line.split():
            word, bar, tag = token.rpartition("|")
            if not (word and bar and tag):
                raise broken_line(path, number, f"{token!r}", "word|TAG")
            words.append((word, tag))
        if words:
            sentences.append(words)
    return sentences
