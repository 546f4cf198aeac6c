"""Instance graphs of parse trees with two types of internal nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from edbatch_tvm.graph import Builder, InstanceGraph, Signature
from edbatch_tvm.models.flat_items import FlatSequences
from edbatch_tvm.models.minibatch_arrays import MinibatchArrays
from edbatch_tvm.models.treelstm.arrays import tree_arrays
from edbatch_tvm.models.treelstm.build import JOIN, tree_graph

JOIN_A, JOIN_B = JOIN, JOIN - 1
"""Postfix symbols of the two types of internal nodes."""

INTERNAL: Mapping[int, str] = MappingProxyType({JOIN_A: "internal_a", JOIN_B: "internal_b"})
"""Their cells."""


def typed_tree_graph(builder: Builder, postfix: Sequence[int]) -> InstanceGraph:
    """The graph of one tree; see :func:`edbatch_tvm.models.treelstm.build.tree_graph`."""
    return tree_graph(builder, postfix, INTERNAL)


def typed_tree_arrays(signature: Signature, trees: FlatSequences) -> MinibatchArrays:
    """The same of many trees, from arrays."""
    return tree_arrays(signature, trees, INTERNAL)
