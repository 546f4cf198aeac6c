"""Instance graphs of parse trees with two types of internal nodes."""

from __future__ import annotations

from collections.abc import Sequence

from edbatch_tvm.graph import Builder, InstanceGraph
from edbatch_tvm.models.treelstm.build import JOIN, tree_graph

JOIN_A, JOIN_B = JOIN, JOIN - 1
"""Postfix symbols of the two types of internal nodes."""


def typed_tree_graph(builder: Builder, postfix: Sequence[int]) -> InstanceGraph:
    """The graph of one tree; see :func:`edbatch_tvm.models.treelstm.build.tree_graph`."""
    return tree_graph(builder, postfix, {JOIN_A: "internal_a", JOIN_B: "internal_b"})
