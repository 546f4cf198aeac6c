"""The child-sum TreeLSTM cells in NumPy, one node at a time."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.checking.reference import Function
from edbatch_tvm.models.reference import sigmoid
from edbatch_tvm.models.treelstm.reference import leaf, readout


def internal(
    hs: np.ndarray, cs: np.ndarray, U_iou: np.ndarray, b_iou: np.ndarray, U_f: np.ndarray, b_f: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The state of a phrase whose parts have the states ``[k, H]``."""
    i, o, u = np.split(hs.sum(axis=0) @ U_iou + b_iou, 3)
    f = sigmoid(hs @ U_f + b_f)
    c = sigmoid(i) * np.tanh(u) + (f * cs).sum(axis=0)
    return sigmoid(o) * np.tanh(c), c


REFERENCE: dict[str, Function] = {"leaf": leaf, "internal": internal, "readout": readout}
