"""Instance graphs of parse trees of any arity."""

from __future__ import annotations

from collections.abc import Sequence

from edbatch_tvm.graph import Builder, InstanceGraph, Value


def flat_tree_graph(builder: Builder, postfix: Sequence[int]) -> InstanceGraph:
    """The graph of one tree: its states, and the readout of every tree node as declared outputs in postfix order.

    Parameters
    ----------
    builder : Builder
    postfix : sequence of int
        The tree in postfix form: a word id for a leaf, -k for a node that joins the k subtrees before it.
    """
    call = builder.call
    stack: list[tuple[Value, Value]] = []
    hidden = []
    for symbol in postfix:
        if symbol < 0:
            children = stack[symbol:]
            del stack[symbol:]
            state = call("internal", [h for h, _ in children], [c for _, c in children])
        else:
            state = call("leaf", word=symbol)
        stack.append(state)
        hidden.append(state[0])
    return builder.finish([call("readout", h) for h in hidden])
