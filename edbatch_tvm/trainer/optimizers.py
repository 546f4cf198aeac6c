"""The optimizers of ``torch.optim`` on the weights of a model, tables row by row where that is the same or usual."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from edbatch_tvm.errors import DataError
from edbatch_tvm.trainer.row_steps import sparse_adam_step
from edbatch_tvm.training.gradients import Gradients
from relay_ext.from_torch import require_torch


class Optimizer:
    """Changes weights by their gradients.

    Rows of a table that no instance of a minibatch reads stay as they are. With ``adagrad`` and plain ``sgd`` this is
    what a dense gradient gives; ``adam`` is then ``torch.optim.SparseAdam``, whose moments of a row change only where
    the row is read. Where ``sgd`` has momentum, gradients of tables are dense.

    Parameters
    ----------
    name : str
        ``adam``, ``adagrad`` or ``sgd``.
    lr, momentum : float
    weights : mapping of str to array
        Where the weights start.
    tables : iterable of str
        Those of which rows are read and nothing else.

    Attributes
    ----------
    weights : dict of str to torch.Tensor
        The weights; steps change them in place.
    """

    def __init__(
        self, name: str, lr: float, momentum: float, weights: Mapping[str, np.ndarray], tables: Iterable[str]
    ) -> None:
        self._torch = torch = require_torch()
        self.weights: dict[str, Any] = {weight: torch.tensor(array) for weight, array in weights.items()}
        self._sparse = [] if name == "sgd" and momentum else sorted(tables)
        self._dense = [weight for weight in self.weights if weight not in self._sparse]
        of_dense, of_sparse = [[self.weights[one] for one in names] for names in (self._dense, self._sparse)]
        optim = torch.optim
        if name == "adam":
            made = [optim.Adam(of_dense, lr, fused=True)]
            made += [optim.SparseAdam(of_sparse, lr)] if of_sparse else []
        elif name == "adagrad":
            made = [optim.Adagrad(of_dense, lr), *([optim.Adagrad(of_sparse, lr)] if of_sparse else [])]
        else:
            made = [optim.SGD(of_dense, lr, momentum), *([optim.SGD(of_sparse, lr)] if of_sparse else [])]
        self._optimizers = made

    def step(self, gradients: Gradients, scale: float) -> dict[str, np.ndarray]:
        """One step by `scale` times the gradients; of tables that change row by row, the rows that it changes."""
        torch = self._torch
        for name in self._dense:
            gradient = np.multiply(gradients[name], np.float32(scale))
            self.weights[name].grad = torch.from_numpy(np.asarray(gradient, order="C"))
        changed = {}
        for name in self._sparse:
            index, rows = gradients.rows(name) if gradients.reaches(name) else _no_rows(gradients[name])
            changed[name] = index
            self.weights[name].grad = torch.sparse_coo_tensor(
                torch.from_numpy(index)[None],
                torch.from_numpy(rows * np.float32(scale)),
                self.weights[name].shape,
                is_coalesced=True,
                check_invariants=False,  # rows of a table, rising
            )
        with torch.sparse.check_sparse_tensor_invariants(enable=False):  # optimizers make more of such tensors
            for optimizer in self._optimizers:
                if isinstance(optimizer, torch.optim.SparseAdam):
                    sparse_adam_step(optimizer)
                else:
                    optimizer.step()
        return changed

    def state(self) -> dict[str, dict[str, np.ndarray]]:
        """What is kept of each weight from step to step: arrays that the next step may change."""
        kept: dict[str, dict[str, np.ndarray]] = {}
        for optimizer, names in zip(self._optimizers, (self._dense, self._sparse), strict=False):
            for name in names:
                own = optimizer.state.get(self.weights[name], {})
                kept[name] = {key: _as_array(value) for key, value in own.items() if value is not None}
        return kept

    def load(self, state: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Go on from what :meth:`state` gave.

        Raises
        ------
        DataError
            If it is not that of these weights.
        """
        try:
            for optimizer, names in zip(self._optimizers, (self._dense, self._sparse), strict=False):
                document = optimizer.state_dict()
                document["state"] = {
                    place: {key: self._restored(name, array) for key, array in state[name].items()}
                    for place, name in enumerate(names)
                    if state.get(name)
                }
                optimizer.load_state_dict(document)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise DataError(f"a checkpoint whose optimizer does not go on ({error})", "the file as written") from None

    def _restored(self, name: str, array: np.ndarray) -> Any:
        if array.ndim and array.shape != tuple(self.weights[name].shape):
            raise ValueError(f"{list(array.shape)} of weight {name}")
        # A count of steps is a number for some optimizers and a tensor for others.
        return int(array) if array.dtype.kind == "i" else self._torch.tensor(array)


def _as_array(value: Any) -> np.ndarray:
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def _no_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.empty(0, np.int64), np.empty((0, *table.shape[1:]), table.dtype)
