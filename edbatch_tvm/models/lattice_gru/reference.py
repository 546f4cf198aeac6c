"""The lattice GRU's cells in NumPy, one node at a time."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.checking.reference import Function
from edbatch_tvm.models.lattice_gru.cells import arc_names
from edbatch_tvm.models.lattice_lstm.reference import readout
from edbatch_tvm.models.reference import sigmoid
from edbatch_tvm.models.renaming import renamed_reference


def start(h_start: np.ndarray) -> np.ndarray:
    """The learned state of a sentence's first node."""
    return h_start


def arc(
    h: np.ndarray,
    label: int,
    embedding: np.ndarray,
    U: np.ndarray,
    W: np.ndarray,
    b: np.ndarray,
    U_c: np.ndarray,
    W_c: np.ndarray,
    b_c: np.ndarray,
) -> np.ndarray:
    """The state at the end of an arc."""
    x = embedding[label]
    r, z = np.split(sigmoid(h @ U + x @ W + b), 2)
    return z * h + (1 - z) * np.tanh((r * h) @ U_c + x @ W_c + b_c)


def join(hs: np.ndarray) -> np.ndarray:
    """The mean of the states of the arcs, ``[k, H]``."""
    return hs.mean(axis=0)


REFERENCE: dict[str, Function] = {
    "start": start,
    "char_arc": renamed_reference(arc, arc_names("char")),
    "word_arc": renamed_reference(arc, arc_names("word")),
    "join": join,
    "readout": readout,
}
