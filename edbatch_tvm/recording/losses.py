"""Losses of class labels: the label is an attribute, so that one cell computes the loss for all of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.dispatch import recorder_of
from edbatch_tvm.recording.lazy import FUNCTIONS, LazyTensor
from edbatch_tvm.recording.site import Site
from edbatch_tvm.recording.specs import FLOATS

_IGNORED = -100
_OPTIONS = {"weight": None, "size_average": None, "ignore_index": _IGNORED, "reduce": None, "reduction": "mean"}


def class_loss(
    scores: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    log: bool,
    ignored: int,
    reduction: str,
) -> torch.Tensor:
    """A loss of labels.

    Parameters
    ----------
    scores : tensor of shape [classes] or [rows, classes]
    target : int64 tensor
        The label of each row.
    weight : tensor of shape [classes], optional
        How much each class counts.
    log : bool
        Whether the log-softmax of the scores is taken; else they are one.
    ignored : int
        The label of rows without a loss.
    reduction : str
        ``"mean"``, ``"sum"`` or ``"none"``.
    """
    numbers = torch.log_softmax(scores, -1) if log else scores
    chosen = torch.arange(scores.shape[-1]) == target[..., None]
    # Not a product: it would be NaN where the logarithm is infinite and the label another.
    own = -torch.where(chosen, numbers, 0.0).sum(-1)
    counts = (target != ignored).to(scores.dtype)
    if weight is not None:
        counts = counts * torch.where(chosen, weight, 0.0).sum(-1)
    every = torch.where(counts != 0, own * counts, 0.0)
    if reduction == "none":
        return every
    return every.sum() if reduction == "sum" else every.sum() / counts.sum()


def _recorded(log: bool, name: str) -> Any:
    def record(_function: Any, arguments: Any, named: dict[str, Any]) -> Any:
        options = dict(zip(("input", "target", *_OPTIONS), arguments, strict=False)) | named
        scores, target = options.pop("input", None), options.pop("target", None)
        if options.pop("label_smoothing", 0.0) or options.keys() - _OPTIONS.keys():
            return NotImplemented
        options = _OPTIONS | options
        weight, ignored, reduction = options["weight"], options["ignore_index"], options["reduction"]
        recorder = recorder_of((scores, weight), {})
        if recorder is None or recorder.finished or torch._C._is_any_autocast_enabled():
            return NotImplemented
        if options["size_average"] is not None or options["reduce"] is not None:
            return NotImplemented
        if type(target) is LazyTensor or not isinstance(target, torch.Tensor) or target.dtype is not torch.int64:
            return NotImplemented
        if scores.dim() not in (1, 2) or target.shape != scores.shape[:-1] or scores.dtype not in FLOATS:
            return NotImplemented
        if reduction not in ("mean", "sum", "none") or type(ignored) is not int or not target.numel():
            return NotImplemented
        classes, labels = scores.shape[-1], target.tolist()
        if not all(0 <= one < classes or one == ignored for one in (labels if target.dim() else (labels,))):
            return NotImplemented  # an error, as PyTorch says it
        function = partial(class_loss, log=log, ignored=ignored, reduction=reduction)
        site = recorder.library.step_site((name, ignored, reduction), lambda: Site(name, function, None))
        try:
            return recorder.call(site, (scores, target, weight) if weight is not None else (scores, target))
        except CellError:
            return NotImplemented

    return record


FUNCTIONS[F.cross_entropy] = _recorded(True, "cross_entropy")
FUNCTIONS[F.nll_loss] = _recorded(False, "nll_loss")
