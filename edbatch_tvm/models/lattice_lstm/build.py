"""Instance graphs of word lattices."""

from __future__ import annotations

from collections.abc import Sequence

from edbatch_tvm.graph import Builder, InstanceGraph, Value
from edbatch_tvm.models.states import as_tuple

Arc = tuple[int, int]
"""One incoming arc of a lattice node: its source node and its label's id."""


def lattice_graph(builder: Builder, incoming: Sequence[Sequence[Arc]]) -> InstanceGraph:
    """The graph of one lattice; the readouts of its nodes are the declared outputs, in order.

    Parameters
    ----------
    builder : Builder
        Of cells whose state is one value or several, the first of which is read out.
    incoming : sequence of sequences of (source, id)
        The arcs into each node; sources come before the node. An arc from the node just before is a character arc,
        any other a word arc. A node without arcs is a start.
    """
    call = builder.call
    states: list[tuple[Value, ...]] = []
    for node, arcs in enumerate(incoming):
        ends = [
            as_tuple(
                call("char_arc", *states[source], char=label)
                if source == node - 1
                else call("word_arc", *states[source], word=label)
            )
            for source, label in arcs
        ]
        if not ends:
            states.append(as_tuple(call("start")))
        elif len(ends) == 1:
            states.append(ends[0])
        else:
            states.append(as_tuple(call("join", *map(list, zip(*ends, strict=True)))))
    return builder.finish([call("readout", state[0]) for state in states])
