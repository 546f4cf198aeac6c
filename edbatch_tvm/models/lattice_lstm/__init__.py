"""An LSTM over word lattices."""

from __future__ import annotations

from edbatch_tvm.models.lattice_lstm.build import lattice_graph
from edbatch_tvm.models.lattice_lstm.cells import cells
from edbatch_tvm.models.lattice_lstm.generator import random_lattices
from edbatch_tvm.models.lattice_lstm.reader import read_lattices
from edbatch_tvm.models.lattice_lstm.reference import REFERENCE
from edbatch_tvm.models.workload import Source, Workload

LATTICES = Source(read_lattices, random_lattices)
"""Word lattices, as the arcs into each node."""

WORKLOAD = Workload("lattice-lstm", cells, LATTICES, lattice_graph, REFERENCE)

__all__ = ["LATTICES", "WORKLOAD"]
