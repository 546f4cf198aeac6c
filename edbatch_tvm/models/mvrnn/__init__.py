"""MV-RNN sentiment over binary parse trees: a vector and a matrix for every node."""

from __future__ import annotations

from dataclasses import replace

from edbatch_tvm.models.mvrnn.cells import cells
from edbatch_tvm.models.mvrnn.reference import REFERENCE
from edbatch_tvm.models.treelstm import SENTIMENTS, TREES
from edbatch_tvm.models.treelstm.arrays import tree_arrays
from edbatch_tvm.models.treelstm.build import tree_graph
from edbatch_tvm.models.workload import Workload

LABELLED = replace(SENTIMENTS, tables={"embedding": "word", "matrices": "word"})

WORKLOAD = Workload("mvrnn", cells, TREES, tree_graph, REFERENCE, LABELLED, tree_arrays)

__all__ = ["WORKLOAD"]
