"""The tagger's cells in NumPy, one node at a time."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.checking.reference import Function
from edbatch_tvm.models.reference import lstm

State = tuple[np.ndarray, np.ndarray]


def forward_layer1(
    h: np.ndarray, c: np.ndarray, word: int, embedding: np.ndarray, W_forward1: np.ndarray, b_forward1: np.ndarray
) -> State:
    """First layer, left to right: reads the word."""
    return lstm(embedding[word], h, c, W_forward1, b_forward1)


def forward_layer2(
    x: np.ndarray, h: np.ndarray, c: np.ndarray, W_forward2: np.ndarray, b_forward2: np.ndarray
) -> State:
    """Second layer, left to right: reads the first."""
    return lstm(x, h, c, W_forward2, b_forward2)


def backward_layer1(
    h: np.ndarray, c: np.ndarray, word: int, embedding: np.ndarray, W_backward1: np.ndarray, b_backward1: np.ndarray
) -> State:
    """First layer, right to left: reads the word."""
    return lstm(embedding[word], h, c, W_backward1, b_backward1)


def backward_layer2(
    x: np.ndarray, h: np.ndarray, c: np.ndarray, W_backward2: np.ndarray, b_backward2: np.ndarray
) -> State:
    """Second layer, right to left: reads the first."""
    return lstm(x, h, c, W_backward2, b_backward2)


def tag(forward: np.ndarray, backward: np.ndarray, T_tag: np.ndarray, O_tag: np.ndarray) -> np.ndarray:
    """Logits of a token from both directions."""
    return np.tanh(np.concatenate([forward, backward]) @ T_tag) @ O_tag


REFERENCE: dict[str, Function] = {
    "forward_layer1": forward_layer1,
    "forward_layer2": forward_layer2,
    "backward_layer1": backward_layer1,
    "backward_layer2": backward_layer2,
    "tag": tag,
}
