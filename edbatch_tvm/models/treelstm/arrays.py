"""Instances of parse trees from arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from edbatch_tvm.errors import DataError
from edbatch_tvm.graph import Signature
from edbatch_tvm.models.flat_items import FlatSequences
from edbatch_tvm.models.minibatch_arrays import MinibatchArrays, Read
from edbatch_tvm.models.native_reader import native_reader
from edbatch_tvm.models.treelstm.build import INTERNAL


def tree_arrays(signature: Signature, trees: FlatSequences, internal: Mapping[int, str] = INTERNAL) -> MinibatchArrays:
    """The instances that :func:`edbatch_tvm.models.treelstm.build.tree_graph` builds of binary trees."""
    found = found_natively(signature, trees, [internal[symbol] for symbol in sorted(internal, reverse=True)], 2)
    if found is not None:
        return found
    made = TreeNodes(signature, trees)
    states = made.values[children_of(trees, 2)]
    left, right = np.ascontiguousarray(states[::2]), np.ascontiguousarray(states[1::2])
    symbols = trees.values[made.internal]
    for symbol, cell in internal.items():
        own = np.flatnonzero(symbols == symbol) if len(internal) > 1 else slice(None)
        made.add(cell, made.internal[own], Read(left[own], made.outputs), Read(right[own], made.outputs))
    return made.arrays()


def found_natively(
    signature: Signature, trees: FlatSequences, internal: Sequence[str], arity: int
) -> MinibatchArrays | None:
    """The arrays of trees by compiled code, or None.

    Parameters
    ----------
    signature : Signature
        As for :class:`TreeNodes`.
    trees : FlatSequences
    internal : sequence of str
        The cells of the symbols -1, -2, ..., or that of all.
    arity : int
        As in :func:`children_of`.
    """
    native = native_reader()
    if native is None:
        return None
    cells = [*map(signature.type_id, ("leaf", "readout", *internal))]
    found = native.tree_nodes(trees, cells, arity, signature.stride, len(signature["leaf"].outputs))
    if found is None:
        return None
    return MinibatchArrays.of_nodes(signature, found, trees.ptr, {("leaf", "word"): found.ids[0]})


class TreeNodes:
    """The nodes of trees in postfix form: a tree's own ones, then their readouts.

    Parameters
    ----------
    signature : Signature
        Of cells whose state is one value or several, the first of which is read out.
    trees : FlatSequences

    Attributes
    ----------
    outputs : int
        The values of a state.
    values : int32 array
        The first of each tree node.
    internal : int array
        Places of the internal nodes in the trees' postfix forms.
    """

    def __init__(self, signature: Signature, trees: FlatSequences) -> None:
        sizes = np.diff(trees.ptr)
        self.outputs = len(signature["leaf"].outputs)
        self._trees = trees
        self._arrays = MinibatchArrays(signature, 2 * trees.ptr)
        # The readouts of earlier trees come before a node, and before a readout all nodes of its tree.
        self._node = np.arange(len(trees.values), dtype=np.int32)
        self._readout = self._node + np.repeat(trees.ptr[1:], sizes)
        self._node += np.repeat(trees.ptr[:-1], sizes)
        self.values = self._arrays.value(self._node)
        is_leaf = trees.values >= 0
        self.internal = np.flatnonzero(~is_leaf)
        self._arrays.add("leaf", self._node[is_leaf], word=trees.values[is_leaf])

    def add(self, cell: str, places: np.ndarray, *reads: Read) -> None:
        """All calls of a cell, by their places in the trees' postfix forms."""
        self._arrays.add(cell, self._node[places], *reads)

    def arrays(self) -> MinibatchArrays:
        """The arrays; readouts of all nodes are the outputs."""
        self._arrays.add("readout", self._readout, Read(self.values))
        return self._arrays.declare(self._readout, self._trees.ptr)


def children_of(trees: FlatSequences, arity: int) -> np.ndarray:
    """The children of all internal nodes, one after the other, as places in ``trees.values``.

    Parameters
    ----------
    trees : FlatSequences
        In postfix form; an internal node is a negative symbol.
    arity : int
        Number of children of an internal node; 0: symbol -k has k.

    Raises
    ------
    DataError
        If an internal node has fewer before it.
    """
    native = native_reader()
    found = native.children(trees, arity) if native is not None else None
    if found is not None:
        return found
    children: list[int] = []
    symbols, ptr = trees.values.tolist(), trees.ptr.tolist()
    for number, (begin, end) in enumerate(pairwise(ptr)):
        stack: list[int] = []
        for place in range(begin, end):
            if symbols[place] < 0:
                parts = arity or -symbols[place]
                if len(stack) < parts:
                    raise DataError(f"a node of tree {number} has {len(stack)} subtrees before it", f"{parts}")
                children += stack[-parts:]
                del stack[-parts:]
            stack.append(place)
    return np.array(children, np.int32)
