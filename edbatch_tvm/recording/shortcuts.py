"""Functions that PyTorch need not take apart: those that look at shapes alone, views, and extrema along a dimension.

Each would come back from PyTorch as an operator, which takes ten times as long as to see here what it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.lazy import FUNCTIONS, LazyTensor, geometry_of
from edbatch_tvm.recording.recorded_views import view

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder


def _like(function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """A function that makes an ordinary tensor of a shape and dtype: it looks at no number."""
    first = arguments[0] if arguments else None
    if type(first) is not LazyTensor or any(type(one) is LazyTensor for one in (*arguments[1:], *named.values())):
        return NotImplemented
    size, stride, _ = geometry_of(first)
    return function(torch.empty_strided(size, stride, dtype=first.dtype), *arguments[1:], **named)


_LIKE = "new_zeros new_ones new_full new_empty zeros_like ones_like full_like empty_like rand_like randn_like"


def _expanded_as(function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """``expand_as`` and ``view_as``: views of the shape of another tensor."""
    if len(arguments) != 2 or named:
        return NotImplemented
    if type(arguments[0]) is torch.Tensor:  # beside a recorded tensor, whose shape is known
        return _VIEWS_AS[function](arguments[0], tuple(arguments[1].shape))
    if type(arguments[0]) is not LazyTensor:
        return NotImplemented
    return view(_VIEWS_AS[function], arguments[0], (tuple(arguments[1].shape),), {})


_VIEWS_AS = {torch.Tensor.expand_as: torch.Tensor.expand, torch.Tensor.view_as: torch.Tensor.view}


def _detached(function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """``detach`` where no gradients are recorded: a view of all of the tensor."""
    if len(arguments) != 1 or named or type(arguments[0]) is not LazyTensor or arguments[0].recorder.tape is not None:
        return NotImplemented
    return view(function, arguments[0], (), {})


ALONG = {
    torch.max: (torch.ops.aten.max.dim, torch.return_types.max),
    torch.Tensor.max: (torch.ops.aten.max.dim, torch.return_types.max),
    torch.min: (torch.ops.aten.min.dim, torch.return_types.min),
    torch.Tensor.min: (torch.ops.aten.min.dim, torch.return_types.min),
}
"""Extrema along a dimension: the operator, and what it returns."""


def extreme(recorder: Recorder, function: Any, tensor: LazyTensor, dim: int) -> Any:
    """Record the largest or smallest elements along a dimension, and where these are."""
    operator, returned = ALONG[function]
    if torch._C._is_any_autocast_enabled() or not tensor.dim() or not tensor.spec.floats:
        return NotImplemented
    try:
        return returned(recorder.operator(operator, (tensor, dim), {}))
    except CellError:
        return NotImplemented


def _table() -> None:
    for name in _LIKE.split():
        for owner in (torch.Tensor, torch):
            if hasattr(owner, name):
                FUNCTIONS[getattr(owner, name)] = _like
    FUNCTIONS.update(dict.fromkeys(_VIEWS_AS, _expanded_as))
    FUNCTIONS[torch.Tensor.detach] = FUNCTIONS[torch.detach] = _detached


_table()
