"""TreeGRU sentiment over binary parse trees."""

from __future__ import annotations

from edbatch_tvm.models.treegru.cells import cells
from edbatch_tvm.models.treegru.reference import REFERENCE
from edbatch_tvm.models.treelstm import SENTIMENTS, TREES
from edbatch_tvm.models.treelstm.arrays import tree_arrays
from edbatch_tvm.models.treelstm.build import tree_graph
from edbatch_tvm.models.workload import Workload

WORKLOAD = Workload("treegru", cells, TREES, tree_graph, REFERENCE, SENTIMENTS, tree_arrays)

__all__ = ["WORKLOAD"]
