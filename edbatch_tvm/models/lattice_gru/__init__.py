"""A GRU over word lattices."""

from __future__ import annotations

from edbatch_tvm.models.lattice_gru.cells import cells
from edbatch_tvm.models.lattice_gru.reference import REFERENCE
from edbatch_tvm.models.lattice_lstm import LATTICES, TAGGED
from edbatch_tvm.models.lattice_lstm.arrays import lattice_arrays
from edbatch_tvm.models.lattice_lstm.build import lattice_graph
from edbatch_tvm.models.workload import Workload

WORKLOAD = Workload("lattice-gru", cells, LATTICES, lattice_graph, REFERENCE, TAGGED, lattice_arrays)

__all__ = ["WORKLOAD"]
