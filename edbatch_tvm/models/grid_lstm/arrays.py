"""Instances of grids from arrays."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.graph import Signature
from edbatch_tvm.models.flat_items import FlatPairs, offsets
from edbatch_tvm.models.minibatch_arrays import MinibatchArrays, Read


def grid_arrays(signature: Signature, pairs: FlatPairs) -> MinibatchArrays:
    """The instances that :func:`edbatch_tvm.models.grid_lstm.build.grid_graph` builds of pairs.

    A pair of n and m words has m calls of its columns, then for each row one and m of the grid, then m readouts.
    """
    rows, columns = np.diff(pairs.source.ptr), np.diff(pairs.target.ptr)
    node_ptr = offsets(2 * columns + rows * (1 + columns))
    made = MinibatchArrays(signature, node_ptr)
    begin = node_ptr[:-1]

    column = np.arange(len(pairs.target.values), dtype=np.int32) - np.repeat(pairs.target.ptr[:-1], columns)
    made.add("target", np.repeat(begin, columns) + column, word=pairs.target.values)

    row = np.arange(len(pairs.source.values), dtype=np.int32) - np.repeat(pairs.source.ptr[:-1], rows)
    wide = np.repeat(columns, rows)  # of each row
    first = np.repeat(begin + columns, rows) + row * (1 + wide)
    made.add("source", first, word=pairs.source.values)

    place = np.arange(int(wide.sum()), dtype=np.int32) - np.repeat(offsets(wide)[:-1], wide)
    node = np.repeat(first + 1, wide) + place
    # Above: the cell of the row before, or the column's word. To the left: the cell before, whose second state is
    # read, or the row's word.
    above = made.value(node - 1 - np.repeat(wide, wide))
    beside = made.value(node - 1) + np.where(place == 0, 0, 2).astype(np.int32)
    made.add("grid", node, Read(above, 2), Read(beside, 2))

    last = np.repeat(begin + columns + (rows - 1) * (1 + columns) + 1, columns) + column
    readout = last + np.repeat(columns, columns)
    made.add("readout", readout, Read(made.value(last)), Read(made.value(last) + 2))
    return made.declare(readout, pairs.target.ptr)
