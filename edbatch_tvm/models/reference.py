"""Equations that the references of several workloads share, in NumPy.

They share no code with the compiled path: what they compute is what a batched run is checked against.
"""

from __future__ import annotations

import numpy as np


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow for large negative `x`."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def lstm(x: np.ndarray, h: np.ndarray, c: np.ndarray, W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One LSTM step, gates in the order i, f, o, g: the next ``(h, c)``."""
    i, f, o, g = np.split(np.concatenate([x, h]) @ W + b, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru(h: np.ndarray, U: np.ndarray, b: np.ndarray, U_c: np.ndarray, b_c: np.ndarray) -> np.ndarray:
    """One GRU step without input, gates in the order r, z: the next ``h``."""
    r, z = np.split(sigmoid(h @ U + b), 2)
    return z * h + (1 - z) * np.tanh((r * h) @ U_c + b_c)
