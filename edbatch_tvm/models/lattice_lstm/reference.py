"""The lattice LSTM's cells in NumPy, one node at a time."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.checking.reference import Function
from edbatch_tvm.models.reference import lstm

State = tuple[np.ndarray, np.ndarray]


def start(h_start: np.ndarray, c_start: np.ndarray) -> State:
    """The learned state of a sentence's first node."""
    return h_start, c_start


def char_arc(
    h: np.ndarray, c: np.ndarray, char: int, char_embedding: np.ndarray, W_char: np.ndarray, b_char: np.ndarray
) -> State:
    """The state at the end of a character arc."""
    return lstm(char_embedding[char], h, c, W_char, b_char)


def word_arc(
    h: np.ndarray, c: np.ndarray, word: int, word_embedding: np.ndarray, W_word: np.ndarray, b_word: np.ndarray
) -> State:
    """The state at the end of a word arc."""
    return lstm(word_embedding[word], h, c, W_word, b_word)


def join(hs: np.ndarray, cs: np.ndarray) -> State:
    """Sums of the states of the arcs, ``[k, H]`` each."""
    return hs.sum(axis=0), cs.sum(axis=0)


def readout(h: np.ndarray, W_out: np.ndarray, b_out: np.ndarray) -> np.ndarray:
    """Logits of a lattice node."""
    return h @ W_out + b_out


REFERENCE: dict[str, Function] = {
    "start": start,
    "char_arc": char_arc,
    "word_arc": word_arc,
    "join": join,
    "readout": readout,
}
