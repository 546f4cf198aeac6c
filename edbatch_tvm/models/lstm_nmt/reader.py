"""Reader of parallel sentences: ``PREFIX.en`` and ``PREFIX.vi``, a sentence a line, line k pairs with line k."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edbatch_tvm.errors import DataError
from edbatch_tvm.models.flat_items import FlatPairs
from edbatch_tvm.models.line_reader import broken_line, read_lines, read_text
from edbatch_tvm.models.lstm_nmt.build import Pair
from edbatch_tvm.models.native_reader import native_reader
from edbatch_tvm.models.vocabulary import word_id
from edbatch_tvm.models.workload import ReadOptions

LANGUAGES = ("en", "vi")
"""Suffixes of the files: from the first language into the second."""


def pair_files(prefix: str | Path) -> tuple[Path, ...]:
    """The two files of a prefix.

    Examples
    --------
    >>> [path.name for path in pair_files("tst2012")]
    ['tst2012.en', 'tst2012.vi']
    """
    return tuple(Path(f"{prefix}.{language}") for language in LANGUAGES)


def read_pair_arrays(prefix: str | Path, _: ReadOptions) -> FlatPairs | None:
    """The same in arrays; None where :func:`read_pairs` is to read the files."""
    native = native_reader()
    if native is None:
        return None
    source, target = (native.lines(read_text(path)[0]) for path in pair_files(prefix))
    if source is None or target is None or len(source) != len(target):
        return None
    if ((np.diff(source.ptr) > 0) != (np.diff(target.ptr) > 0)).any():
        return None
    return FlatPairs(source.without_empty(), target.without_empty())


def read_pairs(prefix: str | Path, _: ReadOptions) -> list[Pair]:
    """Word ids of the pairs of two files, in file order; lines that are empty in both are passed over.

    Raises
    ------
    DataError
        If the files do not have equally many lines, or a line is empty in one of them.
    """
    source_path, target_path = pair_files(prefix)
    sources, targets = read_lines(source_path), read_lines(target_path)
    if len(sources) != len(targets):
        raise DataError(
            f"{source_path} has {len(sources)} lines and {target_path} {len(targets)}", "a translation a line"
        )
    pairs: list[Pair] = []
    for number, (source, target) in enumerate(zip(sources, targets, strict=True), 1):
        words, translation = (list(map(word_id, line.split())) for line in (source, target))
        if words and translation:
            pairs.append((words, translation))
        elif words or translation:
            empty, other = (target_path, source_path) if words else (source_path, target_path)
            raise broken_line(empty, number, "an empty line", f"a sentence, as in {other}")
    return pairs
