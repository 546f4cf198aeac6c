"""The TreeGRU cells in NumPy, one node at a time."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.checking.reference import Function
from edbatch_tvm.models.reference import gru
from edbatch_tvm.models.treelstm.reference import readout


def leaf(
    word: int,
    embedding: np.ndarray,
    U_leaf: np.ndarray,
    b_leaf: np.ndarray,
    U_leaf_c: np.ndarray,
    b_leaf_c: np.ndarray,
) -> np.ndarray:
    """The state of a word."""
    e = embedding[word]
    return gru(e, U_leaf, b_leaf, U_leaf_c, b_leaf_c)


def internal(
    h1: np.ndarray,
    h2: np.ndarray,
    U_1: np.ndarray,
    U_2: np.ndarray,
    b: np.ndarray,
    U_c1: np.ndarray,
    U_c2: np.ndarray,
    b_c: np.ndarray,
) -> np.ndarray:
    """The state of a phrase of two parts."""
    return 0.5 * (gru(h1, U_1, b, U_c1, b_c) + gru(h2, U_2, b, U_c2, b_c))


REFERENCE: dict[str, Function] = {"leaf": leaf, "internal": internal, "readout": readout}
