"""Data files as arrays by compiled code, where it can be had; ``reader_core`` has it.

What is not of the form that it reads it leaves to the readers in Python, and so all errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edbatch_tvm.c_extension import load_extension
from edbatch_tvm.find_native import find_native
from edbatch_tvm.models.flat_items import FlatLattices, FlatSequences
from edbatch_tvm.models.vocabulary import VOCABULARY

PART = "read data files"
"""The name of this part in :mod:`edbatch_tvm.find_native`."""


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
