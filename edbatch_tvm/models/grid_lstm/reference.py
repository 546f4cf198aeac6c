"""The grid LSTM's cells in NumPy, one node at a time."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.checking.reference import Function
from edbatch_tvm.models.grid_lstm.cells import EDGE_WEIGHTS
from edbatch_tvm.models.reference import lstm
from edbatch_tvm.models.renaming import renamed_reference, suffixed


def edge(word: int, embedding: np.ndarray, W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The state that enters with a word."""
    h, c = np.split(np.tanh(embedding[word] @ W + b), 2)
    return h, c


def grid(
    h1: np.ndarray,
    c1: np.ndarray,
    h2: np.ndarray,
    c2: np.ndarray,
    W_1: np.ndarray,
    b_1: np.ndarray,
    W_2: np.ndarray,
    b_2: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """The states that leave a node, ``h1, c1, h2, c2``."""
    return (*lstm(h1, h2, c1, W_1, b_1), *lstm(h1, h2, c2, W_2, b_2))


def readout(h1: np.ndarray, h2: np.ndarray, W_out: np.ndarray, b_out: np.ndarray) -> np.ndarray:
    """Logits of a word of the translation."""
    return np.concatenate([h1, h2]) @ W_out + b_out


REFERENCE: dict[str, Function] = {
    "source": renamed_reference(edge, suffixed("source", *EDGE_WEIGHTS)),
    "target": renamed_reference(edge, suffixed("target", *EDGE_WEIGHTS)),
    "grid": grid,
    "readout": readout,
}
