"""Cells of PyTorch training steps: those of :mod:`edbatch_tvm.peers.torch_models` without writing in place.

Autograd forbids that. Gates stay fused: the fused matrices are the parameters, as in a model that was written so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edbatch_tvm.peers.torch_cells import Out, TorchCell
from edbatch_tvm.peers.torch_models import MODELS


def lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The next (h, c) from pre-activations ``[n, 4 H]`` in the order i, f, o, g."""
    size = gates.shape[-1] // 4
    i, f, o = gates[..., : 3 * size].sigmoid().chunk(3, -1)
    c_next = torch.addcmul(f * c, i, gates[..., 3 * size :].tanh())
    return o * torch.tanh(c_next), c_next


def _leaf(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
    iou = torch.addmm(w[2], ahead, w[1])
    size = iou.shape[1] // 3
    i, o = iou[:, : 2 * size].sigmoid().chunk(2, 1)
    c = i * iou[:, 2 * size :].tanh()
    return o * torch.tanh(c), c


def _internal(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
    rows = groups[0].flatten(1)
    size = rows.shape[1] // 4
    gates = torch.addmm(w[1], rows[:, : 2 * size], w[0])
    i, o, f1, f2 = gates[:, : 4 * size].sigmoid().chunk(4, 1)
    kept = torch.addcmul(f1 * rows[:, 2 * size : 3 * size], f2, rows[:, 3 * size :])
    c = torch.addcmul(kept, i, gates[:, 4 * size :].tanh())
    return o * torch.tanh(c), c


def _lookup_lstm(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
    h, c = groups[0].unbind(1)
    return lstm(torch.addmm(ahead, h, w[2]), c)


def _step_lstm(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
    xhc = groups[0].flatten(1)
    size = xhc.shape[1] // 3
    return lstm(torch.addmm(w[1], xhc[:, : 2 * size], w[0]), xhc[:, 2 * size :])


def _start(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
    return tuple(w)


def _join(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
    return tuple(rows.summed() for rows in groups)


def _tag(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
    return (torch.mm(torch.mm(groups[0].flatten(1), w[0]).tanh(), w[1]),)


STEPS: Mapping[str, Mapping[str, Callable[..., tuple[Tensor, ...]]]] = {
    "treelstm": {"leaf": _leaf, "internal": _internal},
    "lattice-lstm": {"start": _start, "char_arc": _lookup_lstm, "word_arc": _lookup_lstm, "join": _join},
    "bilstm-tagger": {
        **{f"{side}_layer1": _lookup_lstm for side in ("forward", "backward")},
        **{f"{side}_layer2": _step_lstm for side in ("forward", "backward")},
        "tag": _tag,
    },
}
"""Steps of cells in place of those that write in place; other cells are used as they are."""


def training_cells(workload: str) -> dict[str, TorchCell]:
    """The cells of a workload, for autograd."""
    steps = STEPS[workload]
    return {name: replace(cell, step=steps.get(name, cell.step)) for name, cell in MODELS[workload]().items()}


@dataclass(frozen=True, eq=False)
class SummedRows:
    """Rows of a variadic operand, of which each belongs to the node `owner` says."""

    rows: Tensor
    owner: Tensor
    nodes: int

    def summed(self) -> Tensor:
        """Their sum for each node."""
        zeros = self.rows.new_zeros(self.nodes, *self.rows.shape[1:])
        return zeros.index_add(0, self.owner, self.rows)


class Parameters:
    """The weights of a model as PyTorch's engineer has them: fused, each a leaf that gets a gradient.

    Parameters
    ----------
    prepare : mapping of str to callable
        For each cell, a function of the weights as written that gives the fused ones.
    weights : mapping of str to array
        Those of the cells as written.
    dtype : torch.dtype
    """

    def __init__(
        self, prepare: Mapping[str, Callable[[Any], Any]], weights: Mapping[str, np.ndarray], dtype: torch.dtype
    ) -> None:
        self._raw = {name: torch.tensor(array, dtype=dtype).requires_grad_() for name, array in weights.items()}
        self._fused: list[Tensor] = []
        self.leaves: list[Tensor] = []
        self.of_cell = {name: self._as_leaves(fuse(self._raw)) for name, fuse in prepare.items()}

    def _as_leaves(self, prepared: Any) -> Any:
        if isinstance(prepared, Tensor):
            self._fused.append(prepared)
            self.leaves.append(prepared.detach().clone().requires_grad_())
            return self.leaves[-1]
        return None if prepared is None else [self._as_leaves(one) for one in prepared]

    def gradients_as_written(self, gradients: tuple[Tensor | None, ...]) -> dict[str, np.ndarray]:
        """Gradients of the leaves as those of the weights of the cells as written."""
        both = zip(self._fused, gradients, strict=True)
        pairs = [(one, own) for one, own in both if own is not None and one.requires_grad]
        raw = list(self._raw.values())
        found = torch.autograd.grad([one for one, _ in pairs], raw, [own for _, own in pairs], allow_unused=True)
        return {
            name: (torch.zeros_like(weight) if own is None else own).numpy()
            for (name, weight), own in zip(self._raw.items(), found, strict=True)
        }
