"""TreeLSTM sentiment over binary parse trees."""

from __future__ import annotations

from edbatch_tvm.models.treelstm.build import tree_graph
from edbatch_tvm.models.treelstm.cells import cells
from edbatch_tvm.models.treelstm.generator import random_trees
from edbatch_tvm.models.treelstm.reader import read_trees
from edbatch_tvm.models.treelstm.reference import REFERENCE
from edbatch_tvm.models.workload import Source, Workload

TREES = Source(read_trees, random_trees)
"""Binary parse trees in postfix form."""

WORKLOAD = Workload("treelstm", cells, TREES, tree_graph, REFERENCE)

__all__ = ["TREES", "WORKLOAD"]
