"""Tagging of sentences by a two-layer bidirectional LSTM."""

from __future__ import annotations

from edbatch_tvm.models.bilstm_tagger.cells import cells
from edbatch_tvm.models.bilstm_tagger.generator import generate
from edbatch_tvm.models.bilstm_tagger.reader import read
from edbatch_tvm.models.bilstm_tagger.reference import REFERENCE
from edbatch_tvm.models.workload import Workload

WORKLOAD = Workload("bilstm-tagger", cells, read, generate, REFERENCE)

__all__ = ["WORKLOAD"]
