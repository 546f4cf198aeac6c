"""TreeLSTM sentiment over binary parse trees."""

from __future__ import annotations

from edbatch_tvm.models.flatten import flat_sequences
from edbatch_tvm.models.labelled import Labelled
from edbatch_tvm.models.treelstm.arrays import tree_arrays
from edbatch_tvm.models.treelstm.build import tree_graph
from edbatch_tvm.models.treelstm.cells import cells
from edbatch_tvm.models.treelstm.generator import random_trees
from edbatch_tvm.models.treelstm.reader import numbered_tree, read_sentiments, read_tree_arrays, read_trees
from edbatch_tvm.models.treelstm.reference import REFERENCE
from edbatch_tvm.models.workload import Source, Workload

TREES = Source(read_trees, random_trees, flat=flat_sequences, read_flat=read_tree_arrays)
"""Binary parse trees in postfix form."""

SENTIMENTS = Labelled(read_sentiments, numbered_tree, {"embedding": "word"}, "readout", has_root=True)
"""The same trees with a sentiment for each node."""

WORKLOAD = Workload("treelstm", cells, TREES, tree_graph, REFERENCE, SENTIMENTS, tree_arrays)

__all__ = ["SENTIMENTS", "TREES", "WORKLOAD"]
