"""The TreeLSTM cells in NumPy, one node at a time."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.checking.reference import Function
from edbatch_tvm.models.reference import sigmoid


def leaf(word: int, embedding: np.ndarray, W_leaf: np.ndarray, b_leaf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The state of a word."""
    i, o, u = np.split(embedding[word] @ W_leaf + b_leaf, 3)
    c = sigmoid(i) * np.tanh(u)
    return sigmoid(o) * np.tanh(c), c


def internal(
    h1: np.ndarray,
    c1: np.ndarray,
    h2: np.ndarray,
    c2: np.ndarray,
    U_iou: np.ndarray,
    b_iou: np.ndarray,
    U_f1: np.ndarray,
    U_f2: np.ndarray,
    b_f: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The state of a phrase of two parts."""
    i, o, u = np.split(np.concatenate([h1, h2]) @ U_iou + b_iou, 3)
    f1, f2 = sigmoid(h1 @ U_f1 + b_f), sigmoid(h2 @ U_f2 + b_f)
    c = sigmoid(i) * np.tanh(u) + f1 * c1 + f2 * c2
    return sigmoid(o) * np.tanh(c), c


def readout(h: np.ndarray, W_out: np.ndarray, b_out: np.ndarray) -> np.ndarray:
    """Logits of a phrase."""
    return h @ W_out + b_out


REFERENCE: dict[str, Function] = {"leaf": leaf, "internal": internal, "readout": readout}
