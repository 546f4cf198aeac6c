"""What is known of a tensor before it is computed: its shape. All tensors of a recorded graph are float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from edbatch_tvm.errors import RecordingError


class TensorSpec:
    """The shape of a recorded tensor. There is one object for one shape, so that specs compare and hash by identity.

    A value lies flat in its arena, whatever its shape: views of a value are free.

    Attributes
    ----------
    shape : torch.Size
    size : int
        Number of elements.
    """

    __slots__ = ("shape", "size")

    def __init__(self, shape: torch.Size) -> None:
        self.shape = shape
        self.size = shape.numel()

    def __repr__(self) -> str:
        return f"{list(self.shape)}"


class RowsSpec:
    """Any number of rows of one shape, stacked; like :class:`TensorSpec`, one object for one shape."""

    __slots__ = ("row",)

    def __init__(self, row: TensorSpec) -> None:
        self.row = row

    def __repr__(self) -> str:
        return f"k*{self.row!r}"


_SPECS: dict[torch.Size, TensorSpec] = {}
_ROWS: dict[TensorSpec, RowsSpec] = {}
_JOINED: tuple[dict[TensorSpec, RowsSpec | None], dict[TensorSpec, RowsSpec | None]] = ({}, {})
_RESULTS: dict[tuple[Any, ...], TensorSpec] = {}
_MOST_RESULTS = 10_000


def spec_of(shape: Iterable[int]) -> TensorSpec:
    """The spec of tensors of `shape`."""
    shape = shape if isinstance(shape, torch.Size) else torch.Size(shape)
    found = _SPECS.get(shape)
    return found if found is not None else _SPECS.setdefault(shape, TensorSpec(shape))


def rows_of(row: TensorSpec) -> RowsSpec:
    """The spec of stacked rows of spec `row`."""
    found = _ROWS.get(row)
    return found if found is not None else _ROWS.setdefault(row, RowsSpec(row))


def joined_spec(row: TensorSpec, stacked: bool) -> RowsSpec | None:
    """What ``torch.stack`` makes of tensors of `row`; or ``torch.cat``, of tensors that are one row, else None."""
    known = _JOINED[stacked]
    try:
        return known[row]
    except KeyError:
        one_row = len(row.shape) > 1 and row.shape[0] == 1
        joined = rows_of(row) if stacked else rows_of(spec_of(row.shape[1:])) if one_row else None
        return known.setdefault(row, joined)


def spec_of_tensor(tensor: torch.Tensor) -> TensorSpec:
    """The spec of a tensor that enters the graph.

    Raises
    ------
    RecordingError
        If it is of another dtype than float32, or not in host memory.
    """
    if tensor.dtype is not torch.float32 or not tensor.is_cpu:
        raise RecordingError(
            f"an argument of a cell is a tensor of {tensor.dtype} on {tensor.device}",
            "torch.float32 on cpu (or integers, as attributes)",
            "convert the model with .float().cpu()",
        )
    shape = tensor.shape
    return _SPECS.get(shape) or spec_of(shape)


def result_spec(function: Any, spec: TensorSpec, arguments: Sequence[Any], named: Mapping[str, Any]) -> TensorSpec:
    """The spec of what a tensor function makes of a tensor of `spec`, without computing it."""
    try:
        key = (function, spec, *arguments, *named.items())
        found = _RESULTS.get(key)
    except TypeError:  # a slice has no hash before Python 3.12
        key = (function, spec, str(arguments), *named.items())
        found = _RESULTS.get(key)
    if found is None:
        made = function(torch.empty(spec.shape, device="meta"), *arguments, **named)
        if len(_RESULTS) < _MOST_RESULTS:
            _RESULTS[key] = spec_of(made.shape)
        return spec_of(made.shape)
    return found
