"""Data files as arrays by compiled code, where it can be had; ``reader_core`` has it.

What is not of the form that it reads it leaves to the readers in Python, and so all errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edbatch_tvm.c_extension import load_extension
from edbatch_tvm.find_native import find_native
from edbatch_tvm.models.flat_items import FlatLattices, FlatSequences
from edbatch_tvm.models.vocabulary import VOCABULARY

PART = "read data files"
"""The name of this part in :mod:`edbatch_tvm.find_native`."""


class Nodes(NamedTuple):
    """The nodes of a minibatch, in the order in which the builder makes them.

    Attributes
    ----------
    node_type, operand_ptr, operand_value, outputs, node_ptr : array
        As :meth:`edbatch_tvm.graph.Builder.minibatch` takes them.
    ids : list of int32 array
        Attributes.
    """

    node_type: np.ndarray
    operand_ptr: np.ndarray
    operand_value: np.ndarray
    ids: list[np.ndarray]
    outputs: np.ndarray
    node_ptr: np.ndarray


class NativeReader:
    """The compiled functions; each returns None for what is not of its form.

    Raises
    ------
    ImportError, OSError
        If there is no compiler for them.
    """

    def __init__(self) -> None:
        self._core = load_extension("edbatch_reader_core", Path(__file__).with_name("reader_core"), "reader")

    def trees(self, text: bytes) -> tuple[FlatSequences, np.ndarray] | None:
        """Bracketed trees, one a line, in postfix form; and the labels of all nodes, int32."""
        found = _arrays(self._core.trees(text, VOCABULARY))
        return None if found is None else (FlatSequences(found[0], found[2]), found[1])

    def lines(self, text: bytes, tagged: bool = False) -> FlatSequences | None:
        """The word ids of every line; with `tagged`, words are ``word|TAG``."""
        found = _arrays(self._core.words(text, VOCABULARY, tagged))
        return None if found is None else FlatSequences(*found)

    def lattices(self, text: bytes) -> FlatLattices | None:
        """Word lattices."""
        found = _arrays(self._core.lattices(text, VOCABULARY))
        return None if found is None else FlatLattices(*found)

    def sequences(self, items: Sequence[Sequence[int]]) -> FlatSequences | None:
        """Sequences of integers as arrays."""
        found = _arrays(self._core.sequences(items))
        return None if found is None else FlatSequences(*found)

    def nested_arcs(self, items: Sequence[Sequence[Sequence[tuple[int, int]]]]) -> FlatLattices | None:
        """Lattices, as the arcs into each node, as arrays."""
        found = _arrays(self._core.nested_arcs(items))
        return None if found is None else FlatLattices(*found)

    def children(self, trees: FlatSequences, arity: int) -> np.ndarray | None:
        """The children of all internal nodes; see :func:`edbatch_tvm.models.treelstm.arrays.children_of`."""
        found = _arrays(self._core.children(trees.values, trees.ptr, arity) or (None,))
        return None if found is None else found[0]

    def merged(self, trees: FlatSequences, labels: np.ndarray) -> FlatSequences | None:
        """Binary trees with phrases merged into parents of their label, as in `edbatch_tvm.models.childsum_tree`."""
        found = _arrays(self._core.merged(trees.values, labels, trees.ptr))
        return None if found is None else FlatSequences(*found)

    def tree_nodes(
        self, trees: FlatSequences, cells: Sequence[int], arity: int, stride: int, outputs: int
    ) -> Nodes | None:
        """The nodes of trees, whose ids are words.

        Parameters
        ----------
        trees : FlatSequences
        cells : sequence of int
            Type ids: of leaves, readouts, and the symbols -1, -2, ... of internal nodes, or of all of these together.
        arity : int
            As in :meth:`children`.
        stride : int
            Of the signature.
        outputs : int
            The values of a state.
        """
        leaf, readout, *internal = cells
        kinds = np.array(internal, np.int32)
        return _nodes(self._core.tree_nodes(trees.values, trees.ptr, leaf, readout, kinds, arity, stride, outputs))

    def sentence_nodes(self, sentences: FlatSequences, cells: Sequence[int], stride: int) -> Nodes | None:
        """The nodes of sentences, whose ids are the words backward.

        Parameters
        ----------
        sentences : FlatSequences
        cells : sequence of int
            Type ids of the two layers forward, the two backward, and the tag.
        stride : int
            Of the signature.
        """
        return _nodes(self._core.sentence_nodes(sentences.values, sentences.ptr, tuple(cells), stride))

    def lattice_nodes(self, lattices: FlatLattices, cells: Sequence[int], stride: int, outputs: int) -> Nodes | None:
        """The nodes of lattices, whose ids are characters and words.

        Parameters
        ----------
        lattices : FlatLattices
        cells : sequence of int
            Type ids of arcs of characters and words, starts, joins and readouts.
        stride : int
            Of the signature.
        outputs : int
            The values of a state.
        """
        arrays = lattices.sources, lattices.labels, lattices.arc_ptr, lattices.ptr
        return _nodes(self._core.lattice_nodes(*arrays, tuple(cells), stride, outputs))


def _nodes(found: Any) -> Nodes | None:
    if found is None:
        return None
    types, *others = found
    ptr, values, *ids, outputs, node_ptr = [np.frombuffer(part, np.int32) for part in others]
    return Nodes(np.frombuffer(types, np.int16), ptr, values, ids, outputs, node_ptr)


def _arrays(found: Any) -> list[np.ndarray] | None:
    return None if found is None or found[0] is None else [np.frombuffer(part, np.int32) for part in found]


def load() -> NativeReader:
    """The compiled functions, compiled if this machine has none yet.

    Raises
    ------
    ImportError, OSError
        If there is no compiler for them.
    """
    return NativeReader()


def native_reader() -> NativeReader | None:
    """The compiled functions, or None."""
    found: NativeReader | None = find_native(PART)
    return found
