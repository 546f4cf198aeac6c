"""Items that are objects of Python, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain

import numpy as np

from edbatch_tvm.models.flat_items import FlatLattices, FlatPairs, FlatSequences, offsets
from edbatch_tvm.models.native_reader import native_reader


def flat_sequences(items: Sequence[Sequence[int]]) -> FlatSequences:
    """Sequences of integers as arrays."""
    native = native_reader()
    found = native.sequences(items) if native is not None else None
    if found is not None:
        return found
    ptr = offsets(np.fromiter(map(len, items), np.int64, len(items)))
    return FlatSequences(np.array(list(chain.from_iterable(items)), np.int32), ptr)


def flat_pairs(items: Sequence[tuple[Sequence[int], Sequence[int]]]) -> FlatPairs:
    """Pairs of sequences as arrays."""
    return FlatPairs(flat_sequences([source for source, _ in items]), flat_sequences([target for _, target in items]))


def flat_lattices(items: Sequence[Sequence[Sequence[tuple[int, int]]]]) -> FlatLattices:
    """Lattices, as the arcs (source, label) into each node, as arrays."""
    native = native_reader()
    found = native.nested_arcs(items) if native is not None else None
    if found is not None:
        return found
    nodes = list(chain.from_iterable(items))
    arcs = np.array(list(chain.from_iterable(chain.from_iterable(nodes))), np.int32).reshape(-1, 2)
    arc_ptr = np.fromiter(accumulate(map(len, nodes), initial=0), np.int32, len(nodes) + 1)
    ptr = np.fromiter(accumulate(map(len, items), initial=0), np.int32, len(items) + 1)
    return FlatLattices(arcs[:, 0], arcs[:, 1], arc_ptr, ptr)
