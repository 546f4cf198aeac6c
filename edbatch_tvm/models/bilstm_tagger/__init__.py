"""Tagging of sentences by a two-layer bidirectional LSTM."""

from __future__ import annotations

from edbatch_tvm.models.bilstm_tagger.arrays import sentence_arrays
from edbatch_tvm.models.bilstm_tagger.build import sentence_graph
from edbatch_tvm.models.bilstm_tagger.cells import cells
from edbatch_tvm.models.bilstm_tagger.generator import random_sentences
from edbatch_tvm.models.bilstm_tagger.reader import numbered_words, read_sentence_arrays, read_sentences, read_tags
from edbatch_tvm.models.bilstm_tagger.reference import REFERENCE
from edbatch_tvm.models.flatten import flat_sequences
from edbatch_tvm.models.labelled import Labelled
from edbatch_tvm.models.workload import Source, Workload

WORKLOAD = Workload(
    "bilstm-tagger",
    cells,
    Source(read_sentences, random_sentences, flat=flat_sequences, read_flat=read_sentence_arrays),
    sentence_graph,
    REFERENCE,
    Labelled(read_tags, numbered_words, {"embedding": "word"}, "tag", has_root=False),
    sentence_arrays,
)

__all__ = ["WORKLOAD"]
