"""TreeLSTM over binary parse trees whose internal nodes are of two types, each with weights of its own."""

from __future__ import annotations

from dataclasses import replace

from edbatch_tvm.models.flatten import flat_sequences
from edbatch_tvm.models.treelstm import SENTIMENTS
from edbatch_tvm.models.treelstm_2type.build import typed_tree_arrays, typed_tree_graph
from edbatch_tvm.models.treelstm_2type.cells import cells
from edbatch_tvm.models.treelstm_2type.reference import REFERENCE
from edbatch_tvm.models.treelstm_2type.types import (
    random_typed_trees,
    read_typed_arrays,
    read_typed_sentiments,
    read_typed_trees,
)
from edbatch_tvm.models.workload import Source, Workload

WORKLOAD = Workload(
    "treelstm-2type",
    cells,
    Source(read_typed_trees, random_typed_trees, flat=flat_sequences, read_flat=read_typed_arrays),
    typed_tree_graph,
    REFERENCE,
    replace(SENTIMENTS, read=read_typed_sentiments),
    typed_tree_arrays,
)

__all__ = ["WORKLOAD"]
