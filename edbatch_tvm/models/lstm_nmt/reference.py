"""The translator's cells in NumPy, one node at a time."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.checking.reference import Function
from edbatch_tvm.models.lstm_nmt.cells import EMBEDDING_WEIGHTS, STEP_WEIGHTS
from edbatch_tvm.models.reference import sigmoid
from edbatch_tvm.models.renaming import renamed_reference, suffixed


def embed(word: int, embedding: np.ndarray, W_e: np.ndarray, b_e: np.ndarray) -> np.ndarray:
    """What an LSTM reads of a word."""
    return np.tanh(embedding[word] @ W_e + b_e)


def step(
    x: np.ndarray,
    h: np.ndarray,
    c: np.ndarray,
    W_i: np.ndarray,
    W_f: np.ndarray,
    W_o: np.ndarray,
    W_g: np.ndarray,
    b_i: np.ndarray,
    b_f: np.ndarray,
    b_o: np.ndarray,
    b_g: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """One LSTM step: the next ``(h, c)``."""
    xh = np.concatenate([x, h])
    c = sigmoid(xh @ W_f + b_f) * c + sigmoid(xh @ W_i + b_i) * np.tanh(xh @ W_g + b_g)
    return sigmoid(xh @ W_o + b_o) * np.tanh(c), c


def readout(h: np.ndarray, W_out: np.ndarray, b_out: np.ndarray) -> np.ndarray:
    """Logits of the next word."""
    return h @ W_out + b_out


REFERENCE: dict[str, Function] = {
    "source": renamed_reference(embed, suffixed("source", *EMBEDDING_WEIGHTS)),
    "encoder": renamed_reference(step, suffixed("encoder", *STEP_WEIGHTS)),
    "target": renamed_reference(embed, suffixed("target", *EMBEDDING_WEIGHTS)),
    "decoder": renamed_reference(step, suffixed("decoder", *STEP_WEIGHTS)),
    "readout": readout,
}
