"""Instance graphs of parse trees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from edbatch_tvm.graph import Builder, InstanceGraph, Value
from edbatch_tvm.models.states import as_tuple

JOIN = -1
"""Postfix symbol of an internal node: joins the two subtrees before it."""

INTERNAL: Mapping[int, str] = MappingProxyType({JOIN: "internal"})


def tree_graph(builder: Builder, postfix: Sequence[int], internal: Mapping[int, str] = INTERNAL) -> InstanceGraph:
    """The graph of one tree: its states, and the readout of every tree node as declared outputs in postfix order.

    Parameters
    ----------
    builder : Builder
        Of cells whose state is one value or several, the first of which is read out.
    postfix : sequence of int
        The tree in postfix form: a word id for a leaf, a negative symbol for an internal node. Any depth is possible.
    internal : mapping of int to str
        The cell of each symbol of an internal node.
    """
    call = builder.call
    stack: list[tuple[Value, ...]] = []
    hidden = []
    for symbol in postfix:
        if symbol < 0:
            right, left = stack.pop(), stack.pop()
            state = as_tuple(call(internal[symbol], *left, *right))
        else:
            state = as_tuple(call("leaf", word=symbol))
        stack.append(state)
        hidden.append(state[0])
    return builder.finish([call("readout", h) for h in hidden])
