"""The cells of random DAGs in NumPy, one node at a time; operands are ``[k, H]``."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.checking.reference import Function
from edbatch_tvm.models.reference import sigmoid


def input(word: int, embedding: np.ndarray) -> np.ndarray:
    """The embedding of a word."""
    return embedding[word]


def dense(hs: np.ndarray, W_dense: np.ndarray, b_dense: np.ndarray) -> np.ndarray:
    """A layer on the mean."""
    return np.tanh(hs.mean(axis=0) @ W_dense + b_dense)


def gated(hs: np.ndarray, U_gated: np.ndarray, b_gated: np.ndarray) -> np.ndarray:
    """The mean, mixed with a layer on it."""
    s = hs.mean(axis=0)
    z, c = np.split(s @ U_gated + b_gated, 2)
    return sigmoid(z) * s + (1 - sigmoid(z)) * np.tanh(c)


def weighted(hs: np.ndarray, v_weighted: np.ndarray, V_weighted: np.ndarray) -> np.ndarray:
    """A layer on the mean of operands, each with gates of its own."""
    return np.tanh((sigmoid(v_weighted * hs) * hs).mean(axis=0) @ V_weighted)


def largest(hs: np.ndarray, a_largest: np.ndarray, b_largest: np.ndarray) -> np.ndarray:
    """The largest elements, scaled and shifted."""
    return np.tanh(a_largest * hs.max(axis=0) + b_largest)


def readout(h: np.ndarray, W_out: np.ndarray, b_out: np.ndarray) -> np.ndarray:
    """Logits of a value."""
    return h @ W_out + b_out


REFERENCE: dict[str, Function] = {
    "input": input,
    "dense": dense,
    "gated": gated,
    "weighted": weighted,
    "largest": largest,
    "readout": readout,
}
