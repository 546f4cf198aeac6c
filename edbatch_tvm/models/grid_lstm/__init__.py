"""A two-dimensional grid LSTM over a sentence and its translation."""

from __future__ import annotations

from edbatch_tvm.models.grid_lstm.arrays import grid_arrays
from edbatch_tvm.models.grid_lstm.build import grid_graph
from edbatch_tvm.models.grid_lstm.cells import cells
from edbatch_tvm.models.grid_lstm.reference import REFERENCE
from edbatch_tvm.models.lstm_nmt import PAIRS
from edbatch_tvm.models.workload import Workload

WORKLOAD = Workload("grid-lstm", cells, PAIRS, grid_graph, REFERENCE, arrays=grid_arrays)

__all__ = ["WORKLOAD"]
