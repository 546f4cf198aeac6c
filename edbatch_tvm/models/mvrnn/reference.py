"""The MV-RNN cells in NumPy, one node at a time."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.checking.reference import Function

State = tuple[np.ndarray, np.ndarray]


def leaf(word: int, embedding: np.ndarray, matrices: np.ndarray) -> State:
    """Vector and matrix of a word."""
    return embedding[word], matrices[word]


def internal(
    v_l: np.ndarray,
    M_l: np.ndarray,
    v_r: np.ndarray,
    M_r: np.ndarray,
    W_v: np.ndarray,
    b: np.ndarray,
    W_M: np.ndarray,
    b_M: np.ndarray,
) -> State:
    """Vector and matrix of a phrase of two parts."""
    v = np.tanh(np.concatenate([M_l @ v_r, M_r @ v_l]) @ W_v + b)
    return v, W_M @ np.concatenate([M_l, M_r]) + b_M


def readout(v: np.ndarray, W_out: np.ndarray, b_out: np.ndarray) -> np.ndarray:
    """Logits of a phrase."""
    return v @ W_out + b_out


REFERENCE: dict[str, Function] = {"leaf": leaf, "internal": internal, "readout": readout}
