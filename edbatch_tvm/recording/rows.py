"""Calls with rows: which arguments are rows of a list, and how such a call becomes one call a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from edbatch_tvm.recording.lazy import LazyTensor
from edbatch_tvm.recording.specs import RowsSpec, TensorSpec, spec_of
from edbatch_tvm.recording.storages import resolved

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder


@dataclass(frozen=True)
class RowByRow:
    """How calls of a cell that treats rows alike are recorded, one a row.

    Attributes
    ----------
    by_rows : tuple of bool
        The arguments that are taken row by row.
    returned : tuple
        The specs of what a call of one row returns, and its structure; for an operator that works element by element
        only that it is one tensor.
    """

    by_rows: tuple[bool, ...]
    returned: Any


class Again:
    """Stands for a call that has to be described again: more of it matters than was known."""


AGAIN = Again()

POINTWISE = "pointwise"
"""Stands for what an operator returns that works element by element: it is that of a row."""


def rows_among(recorder: Recorder, arguments: tuple[Any, ...], given_too: bool) -> list[TensorSpec | None] | None:
    """The row of every argument that has rows, None for others; None if there is no such argument.

    Parameters
    ----------
    given_too : bool
        Whether ordinary tensors of several rows count, too.
    """
    rows: list[TensorSpec | None] = []
    count: int | None = None
    for argument in arguments:
        row = None
        held = type(argument) is LazyTensor and argument.recorder is recorder and argument.held is not None
        if held and argument.spec.size:
            spec, values = resolved(recorder, argument)
            if type(spec) is RowsSpec and count in (None, len(values)):
                row, count = spec.row, len(values)
        rows.append(row)
    if not given_too and count is None:
        return None
    for place, argument in enumerate(arguments):
        if rows[place] is None and _has_rows(argument) and count in (None, len(argument)):
            if count is None and len(argument) == 1:
                continue
            count = len(argument)
            rows[place] = spec_of(argument.shape[1:])
    return None if count is None else rows


def _has_rows(argument: Any) -> bool:
    tensor = isinstance(argument, torch.Tensor)
    if type(argument) is LazyTensor and argument.spec.size:
        return False
    if not tensor or argument.dim() < 2 or argument.dtype is not torch.float32 or not argument.is_cpu:
        return False
    return argument.shape[1:].numel() > 0


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_POINTWISE = _names(
    "add sub subtract rsub mul multiply div divide true_divide neg negative pow abs square sqrt exp log clamp "
    "__add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ __neg__ __pow__ __abs__ tanh "
    "sigmoid relu gelu silu leaky_relu minimum maximum addcmul lerp softplus elu hardtanh where"
)


def is_pointwise(function: Any) -> bool:
    """Whether a tensor function works element by element."""
    if isinstance(function, torch._ops.OpOverload):
        return torch.Tag.pointwise in function.tags
    return getattr(function, "__name__", "") in _POINTWISE


def aligned(arguments: tuple[Any, ...], rows: list[TensorSpec | None]) -> bool:
    """Whether an operator that broadcasts puts rows beside rows, and nothing else along them."""
    ranks = {len(row.shape) + 1 for row in rows if row is not None}
    if len(ranks) != 1:
        return False
    rank = ranks.pop()
    for argument, row in zip(arguments, rows, strict=True):
        if row is None and isinstance(argument, torch.Tensor):
            if argument.dim() > rank or (argument.dim() == rank and argument.shape[0] != 1):
                return False
        elif row is None and isinstance(argument, list | tuple):
            return False
    return True
