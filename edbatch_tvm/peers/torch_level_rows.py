"""Where the rows of levels are kept for later levels, in training steps on PyTorch.

======== ============================================================================================================
slices   a level writes its slice of one buffer in place; autograd copies the whole gradient of the buffer for each
levels   rows of earlier levels by ``index_select`` of each level that a batch reads, joined and put in order
arena    a read adds its gradient to one buffer of gradients, by two autograd functions of our own
======== ============================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Rows(Protocol):
    """What has rows: how many of which shape in each arena."""

    arenas: list[tuple[int, tuple[int, ...]]]
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Read:
    """Rows that a batch reads: of one arena, by place; and by the batches that wrote them.

    ``parts`` has the begin of a batch and the rows in it; ``order`` puts the parts, one after the other, in order.
    """

    arena: int
    index: Tensor
    parts: list[tuple[int, Tensor]]
    order: Tensor
    shape: tuple[int, ...]
    owner: Tensor | None


@dataclass(frozen=True)
class Write:
    """Rows of an arena that a batch writes."""

    arena: int
    begin: int
    end: int


@dataclass(frozen=True, eq=False)
class LevelCall:
    """A call of a cell on a batch."""

    cell: str
    reads: list[Read]
    writes: list[Write]
    nodes: int


class _Slices:
    """One buffer for each shape; writes go through autograd's own slices."""

    def __init__(self, run: Rows) -> None:
        self._buffers = [torch.zeros(rows, *shape, dtype=run.dtype) for rows, shape in run.arenas]

    def read(self, read: Read) -> Tensor:
        return self._buffers[read.arena].index_select(0, read.index)

    def write(self, write: Write, value: Tensor) -> None:
        self._buffers[write.arena][write.begin : write.end] = value


class _Levels:
    """The result of each batch by itself."""

    def __init__(self, run: Rows) -> None:
        self._zeros = [torch.zeros(1, *shape, dtype=run.dtype) for _, shape in run.arenas]
        self._parts: dict[tuple[int, int], Tensor] = {}

    def read(self, read: Read) -> Tensor:
        parts = [
            (self._parts[read.arena, begin] if begin else self._zeros[read.arena]).index_select(0, index)
            for begin, index in read.parts
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts).index_select(0, read.order)

    def write(self, write: Write, value: Tensor) -> None:
        self._parts[write.arena, write.begin] = value


class _ReadRows(torch.autograd.Function):
    """Rows of an arena; the gradient is added to the arena's. The token makes writes wait for later reads."""

    @staticmethod
    def forward(ctx: Any, token: Tensor, values: Tensor, gradients: Tensor, index: Tensor) -> Tensor:
        ctx.gradients, ctx.index = gradients, index
        return values.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        ctx.gradients.index_add_(0, ctx.index, g)
        return g.new_zeros(()), None, None, None


class _WriteRows(torch.autograd.Function):
    """Write rows of an arena; gives the next token."""

    @staticmethod
    def forward(ctx: Any, token: Tensor, rows: Tensor, gradients: Tensor, value: Tensor) -> Tensor:
        rows.copy_(value)
        ctx.gradients = gradients
        return token.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g, None, None, ctx.gradients


class _Arena:
    """A buffer of values and one of gradients for each shape."""

    def __init__(self, run: Rows) -> None:
        self._values = [torch.zeros(rows, *shape, dtype=run.dtype) for rows, shape in run.arenas]
        self._gradients = [torch.zeros_like(values) for values in self._values]
        self._token = torch.zeros((), dtype=run.dtype).requires_grad_()

    def read(self, read: Read) -> Tensor:
        arena = read.arena
        found: Tensor = _ReadRows.apply(self._token, self._values[arena], self._gradients[arena], read.index)
        return found

    def write(self, write: Write, value: Tensor) -> None:
        part = slice(write.begin, write.end)
        rows, gradients = self._values[write.arena][part], self._gradients[write.arena][part]
        self._token = _WriteRows.apply(self._token, rows, gradients, value)


STORES: Mapping[str, Callable[[Rows], Any]] = {"slices": _Slices, "levels": _Levels, "arena": _Arena}
