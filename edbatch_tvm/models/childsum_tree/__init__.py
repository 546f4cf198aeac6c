"""Child-sum TreeLSTM sentiment over parse trees of any arity."""

from __future__ import annotations

from dataclasses import replace

from edbatch_tvm.models.childsum_tree.arity import (
    random_flat_trees,
    read_flat_sentiments,
    read_flat_tree_arrays,
    read_flat_trees,
)
from edbatch_tvm.models.childsum_tree.arrays import flat_tree_arrays
from edbatch_tvm.models.childsum_tree.build import flat_tree_graph
from edbatch_tvm.models.childsum_tree.cells import cells
from edbatch_tvm.models.childsum_tree.reference import REFERENCE
from edbatch_tvm.models.flatten import flat_sequences
from edbatch_tvm.models.treelstm import SENTIMENTS
from edbatch_tvm.models.workload import Source, Workload

WORKLOAD = Workload(
    "childsum-tree",
    cells,
    Source(read_flat_trees, random_flat_trees, flat=flat_sequences, read_flat=read_flat_tree_arrays),
    flat_tree_graph,
    REFERENCE,
    replace(SENTIMENTS, read=read_flat_sentiments),
    flat_tree_arrays,
)

__all__ = ["WORKLOAD"]
