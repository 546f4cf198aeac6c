"""The spelling tagger's cells in NumPy, one node at a time."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.checking.reference import Function
from edbatch_tvm.models.bilstm_tagger.reference import State, tag
from edbatch_tvm.models.bilstm_tagger_char.cells import DIRECTIONS, LETTER
from edbatch_tvm.models.reference import lstm
from edbatch_tvm.models.renaming import renamed_reference, suffixed


def lookup(h: np.ndarray, c: np.ndarray, word: int, embedding: np.ndarray, W: np.ndarray, b: np.ndarray) -> State:
    """An LSTM that reads an embedding."""
    return lstm(embedding[word], h, c, W, b)


def word(word: int, embedding: np.ndarray) -> np.ndarray:
    """A frequent word."""
    return embedding[word]


def spell(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """A rare word."""
    return np.concatenate([forward, backward])


REFERENCE: dict[str, Function] = {"word": word, "spell": spell, "tag": tag}
for _side in DIRECTIONS:
    _letter = LETTER | suffixed(f"char_{_side}1", "W", "b")
    REFERENCE[f"char_{_side}_layer1"] = renamed_reference(lookup, _letter)
    for _cell, _weights in (
        (f"char_{_side}_layer2", f"char_{_side}2"),
        (f"{_side}_layer1", f"{_side}1"),
        (f"{_side}_layer2", f"{_side}2"),
    ):
        REFERENCE[_cell] = renamed_reference(lstm, suffixed(_weights, "W", "b"))
