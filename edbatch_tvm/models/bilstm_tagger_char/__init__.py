"""Tagging of sentences by a two-layer bidirectional LSTM that spells rare words."""

from __future__ import annotations

from edbatch_tvm.models.bilstm_tagger_char.arrays import flat_spelled, spelled_arrays
from edbatch_tvm.models.bilstm_tagger_char.build import spelled_sentence_graph
from edbatch_tvm.models.bilstm_tagger_char.cells import cells
from edbatch_tvm.models.bilstm_tagger_char.generator import random_spelled_sentences
from edbatch_tvm.models.bilstm_tagger_char.reader import read_spelled_sentences
from edbatch_tvm.models.bilstm_tagger_char.reference import REFERENCE
from edbatch_tvm.models.workload import Source, Workload

WORKLOAD = Workload(
    "bilstm-tagger-char",
    cells,
    Source(read_spelled_sentences, random_spelled_sentences, flat=flat_spelled),
    spelled_sentence_graph,
    REFERENCE,
    arrays=spelled_arrays,
)

__all__ = ["WORKLOAD"]
