"""Instance graphs of parse trees."""

from __future__ import annotations

from collections.abc import Sequence

from edbatch_tvm.graph import Builder, InstanceGraph, Value

JOIN = -1
"""Postfix symbol of an internal node: joins the two subtrees before it."""


def tree_graph(builder: Builder, postfix: Sequence[int]) -> InstanceGraph:
    """The graph of one tree: its states, and the readout of every tree node as declared outputs in postfix order.

    Parameters
    ----------
    builder : Builder
    postfix : sequence of int
        The tree in postfix form: a word id for a leaf, :data:`JOIN` for an internal node. Any depth will do.
    """
    call = builder.call
    stack: list[tuple[Value, Value]] = []
    hidden = []
    for symbol in postfix:
        if symbol == JOIN:
            right, left = stack.pop(), stack.pop()
            state = call("internal", *left, *right)
        else:
            state = call("leaf", word=symbol)
        stack.append(state)
        hidden.append(state[0])
    return builder.finish([call("readout", h) for h in hidden])
