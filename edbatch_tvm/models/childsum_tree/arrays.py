"""Instances of parse trees of any arity from arrays."""

from __future__ import annotations

from edbatch_tvm.graph import Signature
from edbatch_tvm.models.flat_items import FlatSequences
from edbatch_tvm.models.minibatch_arrays import MinibatchArrays, Read
from edbatch_tvm.models.treelstm.arrays import TreeNodes, children_of, found_natively


def flat_tree_arrays(signature: Signature, trees: FlatSequences) -> MinibatchArrays:
    """The instances that :func:`edbatch_tvm.models.childsum_tree.build.flat_tree_graph` builds of trees."""
    found = found_natively(signature, trees, ["internal"], 0)
    if found is not None:
        return found
    made = TreeNodes(signature, trees)
    states = made.values[children_of(trees, 0)]
    made.add("internal", made.internal, Read(states, made.outputs, -trees.values[made.internal]))
    return made.arrays()
