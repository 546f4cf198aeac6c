"""An LSTM over word lattices."""

from __future__ import annotations

from edbatch_tvm.models.lattice_lstm.cells import cells
from edbatch_tvm.models.lattice_lstm.generator import generate
from edbatch_tvm.models.lattice_lstm.reader import read
from edbatch_tvm.models.lattice_lstm.reference import REFERENCE
from edbatch_tvm.models.workload import Workload

WORKLOAD = Workload("lattice-lstm", cells, read, generate, REFERENCE)

__all__ = ["WORKLOAD"]
