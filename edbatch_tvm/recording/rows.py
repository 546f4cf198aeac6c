"""Calls with rows: which arguments are rows of a list, and how such a call becomes one call a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from edbatch_tvm.recording.lazy import LazyTensor
from edbatch_tvm.recording.specs import FLOATS, GridSpec, RowsSpec, TensorSpec, rows_of, spec_of
from edbatch_tvm.recording.storages import resolved

if TYPE_CHECKING:
    from edbatch_tvm.recording.fused_rows import RowOperation
    from edbatch_tvm.recording.recorder import Recorder


@dataclass(slots=True)
class RowByRow:
    """How calls of a cell that treats rows alike are recorded, one a row.

    Attributes
    ----------
    by_rows : tuple of (int or None)
        For each argument, and each part of one that is a tuple or list, the dimension along which it is taken row by
        row; None if it is not.
    returned : tuple
        The specs of the rows that a call returns, and its structure; for an operator that works element by element only
        that it is one tensor.
    node : tuple or None
        The type of the node of a row, the places of its operands and of its attributes among the arguments with rows,
        and what :attr:`returned` says of one row, once it is known. Place ``-1 - n`` is argument n, one value for all
        rows; place ``m * width + n`` is the m-th value of a row of the n-th of `width` arguments whose rows are lists.
    lists : list of int
        For each argument with rows, how many values a row of it had when `node` became known; 0 if that was no list.
    operation : RowOperation or None
        What calls are that may be recorded later, together with others.
    order : tuple of int or None
        Which of the tensors among the arguments of such a call each operand of `node` is, once that is known.
    """

    by_rows: tuple[int | None, ...]
    returned: Any
    node: tuple[int, list[int], list[int], tuple[list[RowsSpec], Any]] | None = None
    lists: list[int] = field(default_factory=list)
    operation: RowOperation | None = None
    order: tuple[int, ...] | None = None


class Again:
    """Stands for a call that has to be described again: more of it matters than was known."""


AGAIN = Again()

STAND_IN = -(1 << 60)
"""Numbers from here on down stand for values in the description of a call or a cell."""

POINTWISE = "pointwise"
"""Stands for what an operator returns that works element by element: it is that of a row."""


def row_spec(tensor: Any, at: int) -> TensorSpec:
    """That of a row of a tensor, which has an extent of 1 in the dimension of the rows."""
    shape = tensor.shape
    return spec_of((*shape[:at], 1, *shape[at + 1 :]), tensor.dtype)


def leaves_of(arguments: tuple[Any, ...], lists: bool) -> list[Any]:
    """The arguments of a call, parts of tuples by themselves; those of lists, too, if `lists`."""
    leaves: list[Any] = []
    for argument in arguments:
        if isinstance(argument, tuple) or (lists and type(argument) is list):
            leaves += leaves_of(tuple(argument), lists)
        else:
            leaves.append(argument)
    return leaves


def with_leaves(arguments: Any, leaves: Iterator[Any], lists: bool) -> list[Any]:
    """The same arguments with other leaves, in order."""
    made: list[Any] = []
    for argument in arguments:
        if isinstance(argument, tuple):
            parts = with_leaves(argument, leaves, lists)
            made.append(type(argument)(*parts) if hasattr(argument, "_fields") else tuple(parts))
        elif lists and type(argument) is list:
            made.append(with_leaves(argument, leaves, lists))
        else:
            made.append(next(leaves))
    return made


def rows_among(
    recorder: Recorder, leaves: list[Any], is_operator: bool, pointwise: bool = False
) -> list[RowsSpec | None] | None:
    """The rows that every argument has, None for others; None if there is no such argument.

    Ordinary tensors have rows if a recorded one has as many, or, for cells, if they have several; so have integers.
    An operator that is `pointwise` takes masks row by row, too, and numbers beside rows of one number each.
    """
    rows: list[RowsSpec | None] = []
    first: RowsSpec | None = None
    count: int | None = None
    for leaf in leaves:
        spec = None
        if type(leaf) is LazyTensor and leaf.recorder is recorder and leaf.held is not None and leaf.spec.size:
            found, values = resolved(recorder, leaf)
            if type(found) is RowsSpec and count in (None, len(values)):
                spec, count = found, len(values)
            elif type(found) is GridSpec:
                along = next(at for at, extent in enumerate(leaf.shape) if extent != 1)
                if count in (None, leaf.shape[along]):
                    count = leaf.shape[along]
                    spec = rows_of(spec_of((*leaf.shape[:along], *leaf.shape[along + 1 :]), leaf.dtype), along)
            first = first or spec
        rows.append(spec)
    if is_operator and count is None:
        return None
    for place, leaf in enumerate(leaves):
        index = not is_operator and _is_index(leaf)
        numbers = pointwise and first is not None and first.at == len(first.row.shape)
        if rows[place] is None and (index or _has_rows(leaf, pointwise, numbers)):
            at = _dimension_of_rows(leaf.shape, count, first, index or numbers)
            if at is not None:
                shape = leaf.shape
                count = shape[at]
                spec = rows[place] = rows_of(spec_of((*shape[:at], *shape[at + 1 :]), leaf.dtype), at)
                first = first or spec
    return None if count is None else rows


def _dimension_of_rows(shape: torch.Size, count: int | None, like: RowsSpec | None, numbers: bool) -> int | None:
    """The dimension of an ordinary tensor that may be that of `count` rows; of any number but one, if that is None.

    The last one is none, except where `numbers` are rows, as integers are.
    """
    last = len(shape) - 1 + numbers
    if count == 1:  # any would do: the one that is as far from the end
        at = len(shape) - 1 - (len(like.row.shape) - like.at) if like is not None else -1
        return at if at in range(last) and all(extent == 1 for extent in shape[: at + 1]) else None
    for at, extent in enumerate(shape[:last]):
        if extent != 1:
            return at if count in (None, extent) and shape[at + 1 :].numel() else None
    return None


def _is_index(argument: Any) -> bool:
    """Whether an argument is a tensor of integers, such as words."""
    return type(argument) is torch.Tensor and argument.dtype is torch.int64 and argument.dim() > 0


def _has_rows(argument: Any, masks: bool, numbers: bool) -> bool:
    """Whether an argument is an ordinary tensor that may have rows: of numbers, or of truth values if it may be a mask.

    One of one dimension has some only where `numbers` are rows.
    """
    if not isinstance(argument, torch.Tensor) or (type(argument) is LazyTensor and argument.spec.size):
        return False
    known = argument.dtype in FLOATS or (masks and argument.dtype is torch.bool)
    return argument.dim() > 1 - numbers and known and argument.is_cpu


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


def aligned(leaves: list[Any], rows: list[RowsSpec | None]) -> bool:
    """Whether an operator that broadcasts puts rows beside rows, and nothing else along them or before them."""
    ranks = {(len(row.row.shape) + 1, row.at) for row in rows if row is not None}
    if len({rank - at for rank, at in ranks}) != 1:
        return False
    rank, at = max(ranks)
    for leaf, row in zip(leaves, rows, strict=True):
        if row is None and isinstance(leaf, torch.Tensor):
            before = leaf.dim() - (rank - at)
            if leaf.dim() > rank or (before >= 0 and leaf.shape[: before + 1].numel() != 1):
                return False
        elif row is None and isinstance(leaf, list):
            return False
    return True
