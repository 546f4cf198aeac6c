"""An LSTM over word lattices."""

from __future__ import annotations

from edbatch_tvm.models.flatten import flat_lattices
from edbatch_tvm.models.labelled import Labelled
from edbatch_tvm.models.lattice_lstm.arrays import lattice_arrays
from edbatch_tvm.models.lattice_lstm.build import lattice_graph
from edbatch_tvm.models.lattice_lstm.cells import cells
from edbatch_tvm.models.lattice_lstm.generator import random_lattices
from edbatch_tvm.models.lattice_lstm.reader import (
    numbered_lattice,
    read_lattice_arrays,
    read_lattice_tags,
    read_lattices,
)
from edbatch_tvm.models.lattice_lstm.reference import REFERENCE
from edbatch_tvm.models.workload import Source, Workload

LATTICES = Source(read_lattices, random_lattices, flat=flat_lattices, read_flat=read_lattice_arrays)
"""Word lattices, as the arcs into each node."""

TAGGED = Labelled(
    read_lattice_tags,
    numbered_lattice,
    {"char_embedding": "char", "word_embedding": "word"},
    "readout",
    has_root=False,
)
"""The same lattices with a tag for each character."""

WORKLOAD = Workload("lattice-lstm", cells, LATTICES, lattice_graph, REFERENCE, TAGGED, lattice_arrays)

__all__ = ["LATTICES", "TAGGED", "WORKLOAD"]
