"""Translation by an LSTM encoder and decoder."""

from __future__ import annotations

from edbatch_tvm.models.flatten import flat_pairs
from edbatch_tvm.models.lstm_nmt.arrays import translation_arrays
from edbatch_tvm.models.lstm_nmt.build import translation_graph
from edbatch_tvm.models.lstm_nmt.cells import cells
from edbatch_tvm.models.lstm_nmt.generator import random_pairs
from edbatch_tvm.models.lstm_nmt.reader import pair_files, read_pair_arrays, read_pairs
from edbatch_tvm.models.lstm_nmt.reference import REFERENCE
from edbatch_tvm.models.workload import Source, Workload

PAIRS = Source(read_pairs, random_pairs, pair_files, flat_pairs, read_pair_arrays)
"""Sentences and their translations, as word ids."""

WORKLOAD = Workload("lstm-nmt", cells, PAIRS, translation_graph, REFERENCE, arrays=translation_arrays)

__all__ = ["PAIRS", "WORKLOAD"]
