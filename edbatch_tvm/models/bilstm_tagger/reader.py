"""Reader of tagged sentences in the form of WikiNER: ``word|TAG word|TAG ...``, one sentence a line."""

from __future__ import annotations

from pathlib import Path

from edbatch_tvm.graph import Builder, InstanceGraph, Signature
from edbatch_tvm.models.bilstm_tagger.build import sentence_graph
from edbatch_tvm.models.files import broken_line, read_lines
from edbatch_tvm.models.vocabulary import word_id


def read(path: str | Path, signature: Signature) -> list[InstanceGraph]:
    """Instance graphs of the sentences of a file, in file order; empty lines are passed over, tags dropped.

    Raises
    ------
    DataError
        Naming the file and the line that is no tagged sentence.
    """
    builder = Builder(signature)
    graphs = []
    for number, line in enumerate(read_lines(path), 1):
        words = []
        for token in line.split():
            word, bar, tag = token.rpartition("|")
            if not (word and bar and tag):
                raise broken_line(path, number, f"{token!r}", "word|TAG")
            words.append(word_id(word))
        if words:
            graphs.append(sentence_graph(builder, words))
    return graphs
