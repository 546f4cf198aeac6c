"""Instances of word lattices from arrays."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.graph import Signature
from edbatch_tvm.models.flat_items import FlatLattices, offsets, positions
from edbatch_tvm.models.minibatch_arrays import MinibatchArrays, Read
from edbatch_tvm.models.native_reader import native_reader


def lattice_arrays(signature: Signature, lattices: FlatLattices) -> MinibatchArrays:
    """The instances that :func:`edbatch_tvm.models.lattice_lstm.build.lattice_graph` builds of lattices.

    A lattice node has the calls of its arcs, then that of its start or join unless it has just one arc; the readouts
    of a lattice come last.
    """
    outputs = len(signature["start"].outputs)
    native = native_reader()
    if native is not None:
        cells = [*map(signature.type_id, ("char_arc", "word_arc", "start", "join", "readout"))]
        found = native.lattice_nodes(lattices, cells, signature.stride, outputs)
        if found is not None:
            labels = dict(zip((("char_arc", "char"), ("word_arc", "word")), found.ids, strict=True))
            return MinibatchArrays.of_nodes(signature, found, lattices.ptr, labels)
    sizes, arcs = np.diff(lattices.ptr), np.diff(lattices.arc_ptr)
    nodes = np.arange(len(arcs), dtype=np.int32)
    # Calls before each lattice node: those of nodes before it, and readouts of lattices before its own.
    own_call = arcs != 1
    calls = offsets(arcs + own_call)
    begin = np.repeat(lattices.ptr[:-1], sizes)
    first_call = calls[:-1] + begin
    state = first_call + arcs * own_call
    readout = np.repeat(calls[lattices.ptr[1:]], sizes) + nodes
    made = MinibatchArrays(signature, calls[lattices.ptr] + lattices.ptr)
    values = made.value(state)

    into = np.repeat(nodes, arcs)
    source = lattices.sources + begin[into]
    # One call an arc, in the order of the arcs; before it the starts, joins and readouts of earlier nodes.
    arc_call = np.arange(len(into), dtype=np.int32) + (first_call - lattices.arc_ptr[:-1])[into]
    read = values[source]
    is_char = source == into - 1
    for cell, name, those in (("char_arc", "char", is_char), ("word_arc", "word", ~is_char)):
        made.add(cell, arc_call[those], Read(read[those], outputs), **{name: lattices.labels[those]})
    made.add("start", state[arcs == 0])
    joins = np.flatnonzero(arcs > 1)
    joined = made.value(positions(first_call[joins], arcs[joins]))
    made.add("join", state[joins], Read(joined, outputs, arcs[joins]))
    made.add("readout", readout, Read(values))
    return made.declare(readout, lattices.ptr)
