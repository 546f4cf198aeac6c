"""Functions of all rows of a list that would be a cell for each number of rows: recorded as others that are not.

A softmax returns as many numbers as it is given. Its maximum and its sum are one value each, for any number of rows,
and what is in between is computed row by row. The product of a vector and a transposed list (``q @ keys.T``) is that of
each row and the vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch.nn import functional as F

from edbatch_tvm.recording.lazy import LazyTensor
from edbatch_tvm.recording.specs import RowsSpec
from edbatch_tvm.recording.storages import resolved

FEW_COUNTS = 2
"""Numbers of rows up to which each has a cell of its own: a model whose lists all have five rows takes one."""


@dataclass(frozen=True, slots=True)
class OverRows:
    """How a call is recorded: by what computes the same of its first argument along the dimension of its rows."""

    function: Callable[[torch.Tensor, int], torch.Tensor]
    dim: int


def over_rows(
    function: Any, named: Sequence[str], arguments: tuple[Any, ...], rows: Sequence[RowsSpec | None]
) -> OverRows | None:
    """How a softmax or a cumulative sum along the rows of its argument is recorded; None for other calls.

    Parameters
    ----------
    named : sequence of str
        Names of the last arguments.
    rows : sequence
        For each argument, the rows that it has.
    """
    made = _ALONG_ROWS.get(function)
    if made is None or rows[0] is None:
        return None
    count = len(arguments) - len(named)
    given = dict(zip(("input", "dim", "half_to_float"), arguments[:count], strict=False))
    given |= dict(zip(named, arguments[count:], strict=True))
    dim, rank = given.get("dim"), len(rows[0].row.shape) + 1
    if type(dim) is not int or given.get("dtype") not in (None, rows[0].row.dtype) or given.get("half_to_float"):
        return None
    return OverRows(made, rows[0].at) if -rank <= dim < rank and dim % rank == rows[0].at else None


def with_transposed_rows(row: Any, matrix: Any) -> torch.Tensor | None:
    """The product of one row and a transposed list of rows, recorded row by row; None for other tensors."""
    if type(matrix) is not LazyTensor or matrix.recorder.finished or matrix.held is None or matrix.dim() < 2:
        return None
    if not isinstance(row, torch.Tensor):
        return None
    *before, length, count = matrix.shape
    if count < 2 or any(extent != 1 for extent in before) or len(before) > max(row.dim() - 2, 0):
        return None
    if not row.dim() or row.shape[-1] != length or row.numel() != length or matrix.stride(-1) == 1:
        return None
    rows = matrix.mT
    spec, values = resolved(matrix.recorder, rows)
    if type(spec) is not RowsSpec or len(values) != count:
        return None
    return (rows.view(count, length) @ row.view(length)).view(*row.shape[:-1], count)


def _softmax(rows: torch.Tensor, dim: int) -> torch.Tensor:
    powers = (rows - rows.amax(dim, keepdim=True).detach()).exp()
    return powers / powers.sum(dim, keepdim=True)


def _log_softmax(rows: torch.Tensor, dim: int) -> torch.Tensor:
    less = rows - rows.amax(dim, keepdim=True).detach()
    return less - less.exp().sum(dim, keepdim=True).log()


def _cumsum(rows: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.stack(list(accumulate(rows.unbind(dim), torch.Tensor.add)), dim)


_ATEN = torch.ops.aten

_ALONG_ROWS: dict[Any, Callable[[torch.Tensor, int], torch.Tensor]] = {
    **dict.fromkeys((torch.softmax, torch.Tensor.softmax, F.softmax, _ATEN._softmax.default), _softmax),
    **dict.fromkeys(
        (torch.log_softmax, torch.Tensor.log_softmax, F.log_softmax, _ATEN._log_softmax.default), _log_softmax
    ),
    _ATEN.cumsum.default: _cumsum,
}
