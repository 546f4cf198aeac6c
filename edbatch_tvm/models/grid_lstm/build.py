"""Instance graphs of grids: a row for each word of a sentence, a column for each word of its translation."""

from __future__ import annotations

from edbatch_tvm.graph import Builder, InstanceGraph, Value
from edbatch_tvm.models.lstm_nmt.build import Pair

State = tuple[Value, Value]


def grid_graph(builder: Builder, pair: Pair) -> InstanceGraph:
    """The graph of one pair; the readouts of the last row, one a word of the translation, are the declared outputs.

    The first state of a node comes from the node above, that of the first row from the column's word; the second
    state from the node to the left, that of the first column from the row's word.
    """
    call = builder.call
    source, target = pair
    down: list[State] = [call("target", word=word) for word in target]
    last_row: list[tuple[Value, Value]] = []
    for word in source:
        right: State = call("source", word=word)
        last_row = []
        for column, above in enumerate(down):
            h1, c1, h2, c2 = call("grid", *above, *right)
            down[column], right = (h1, c1), (h2, c2)
            last_row.append((h1, h2))
    return builder.finish([call("readout", h1, h2) for h1, h2 in last_row])
