"""The cells of the workloads on PyTorch, each for a batch of nodes.

Weights of gates that read one input are fused into one matrix, so that a batch is one ``addmm`` where the cell allows
it; what depends on attributes alone (an embedding times its weights) is computed ahead for all nodes of a type at once.
The last operation of a cell writes to where the results have to lie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Weights = Mapping[str, Any]
Out = Sequence["Tensor | None"]


@dataclass(frozen=True)
class Rows:
    """Rows of a variadic operand: ``source[index]``, of node i from ``offsets[i]`` on; `every` counts them."""

    source: Tensor
    index: Tensor
    offsets: Tensor
    every: Tensor

    def all(self) -> Tensor:
        """The rows, one after another."""
        return self.source.index_select(0, self.index)

    def reduced(self, mode: str) -> Tensor:
        """Their sum, mean or maximum for each node."""
        return torch.nn.functional.embedding_bag(self.index, self.source, self.offsets, mode=mode)

    def reduced_of(self, values: Tensor, mode: str) -> Tensor:
        """The same of `values`, one for each row."""
        return torch.nn.functional.embedding_bag(self.every, values, self.offsets, mode=mode)


@dataclass(frozen=True)
class TorchCell:
    """One cell for a batch of n nodes.

    Attributes
    ----------
    reads : tuple of tuple of str
        Operands in groups; those of one group come as one tensor ``[n, operands of the group, *shape]``, a variadic
        operand (alone in its group) as :class:`Rows`.
    step : callable
        ``step(weights, ahead, groups, out)`` are the outputs; where ``out[slot]`` is a tensor it is written to.
    prepare : callable
        ``prepare(weights)`` are the fused weights that `step` and `ahead` get.
    ahead : callable, optional
        ``ahead(weights, attributes)`` is a tensor with a row for each node, of all nodes of the type at once.
    """

    reads: tuple[tuple[str, ...], ...]
    step: Callable[[Any, Any, list[Any], Out], tuple[Tensor, ...]]
    prepare: Callable[[Weights], Any]
    ahead: Callable[[Any, list[Tensor]], Any] | None = None


# The equations --------------------------------------------------------------------------------------------------------


def lstm(gates: Tensor, c: Tensor, out: Out) -> tuple[Tensor, Tensor]:
    """The next (h, c) from pre-activations ``[n, 4 H]`` in the order i, f, o, g."""
    size = gates.shape[-1] // 4
    i, f, o = gates[..., : 3 * size].sigmoid_().chunk(3, -1)
    g = gates[..., 3 * size :].tanh_()
    c_next = torch.addcmul(f * c, i, g, out=out[1])
    return torch.mul(o, torch.tanh(c_next), out=out[0]), c_next


def mixed(z: Tensor, h: Tensor, c: Tensor, out: Tensor | None = None) -> Tensor:
    """``z * h + (1 - z) * c``."""
    return torch.lerp(c, h, z, out=out)


def _into(value: Tensor, out: Tensor | None) -> Tensor:
    return value if out is None else out.copy_(value)


# Cells ----------------------------------------------------------------------------------------------------------------


def readout(operand: str, matrix: str = "W_out", bias: str = "b_out") -> TorchCell:
    """A layer on one operand."""

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        return (torch.addmm(w[1], groups[0].flatten(1), w[0], out=out[0]),)

    return TorchCell(((operand,),), step, lambda w: (w[matrix], w[bias]))


def readout_of_two(first: str, second: str) -> TorchCell:
    """A layer on two operands."""
    return TorchCell(((first, second),), readout(first).step, lambda w: (w["W_out"], w["b_out"]))


def embedding(table: str) -> TorchCell:
    """A row of a table."""

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        return (_into(ahead, out[0]),)

    return TorchCell((), step, lambda w: w[table], lambda w, words: w[words[0]])


def constant(*names: str) -> TorchCell:
    """Learned states."""

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        return tuple(_into(row, to) for row, to in zip(w, out, strict=True))

    return TorchCell((), step, lambda w: [w[name][None] for name in names])


def lookup_lstm(matrix: str, bias: str, table: str) -> TorchCell:
    """An LSTM on an embedding: its product with the input is computed ahead."""

    def prepare(w: Weights) -> Any:
        width = w[table].shape[1]
        return w[table], w[matrix][:width].contiguous(), w[matrix][width:].contiguous(), w[bias]

    def ahead(w: Any, words: list[Tensor]) -> Tensor:
        return torch.addmm(w[3], w[0].index_select(0, words[0]), w[1])

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        h, c = groups[0].unbind(1)
        return lstm(torch.addmm(ahead, h, w[2]), c, out)

    return TorchCell((("h", "c"),), step, prepare, ahead)


def step_lstm(matrix: str, bias: str) -> TorchCell:
    """An LSTM on a value of the same size as its state."""

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        xhc = groups[0].flatten(1)
        size = xhc.shape[1] // 3
        return lstm(torch.addmm(w[1], xhc[:, : 2 * size], w[0]), xhc[:, 2 * size :], out)

    return TorchCell((("x", "h", "c"),), step, lambda w: (w[matrix], w[bias]))
