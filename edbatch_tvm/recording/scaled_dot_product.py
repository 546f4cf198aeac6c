"""``F.scaled_dot_product_attention`` of rows: one cell attends, as in :mod:`edbatch_tvm.recording.attention`."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.attention import Attend, attended, attending, projected, site_of
from edbatch_tvm.recording.lazy import FUNCTIONS, LazyTensor
from edbatch_tvm.recording.row_choices import tensor_of_grid, values_of_rows

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder


class SideBySide(torch.nn.Module):
    """A key and its value, as rows that :class:`~edbatch_tvm.recording.attention.Attend` takes."""

    def forward(self, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """The two, joined."""
        return torch.cat([key, value])


_NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


def _plain(arguments: Any, named: dict[str, Any]) -> dict[str, Any] | None:
    """The arguments of a call by name, if it is attention of rows with several heads; None if it is more."""
    given: dict[str, Any] = dict(zip(_NAMES, arguments, strict=False)) | named
    tensors: list[Any] = [given.get(name) for name in _NAMES[:3]]
    if given.get("dropout_p") or given.get("enable_gqa"):
        return None
    if not all(isinstance(one, torch.Tensor) and one.dim() == 4 and one.numel() for one in tensors):
        return None
    query, key, value = tensors
    fits = key.shape[:2] == query.shape[:2] and key.shape[3] == query.shape[3] and value.shape[:3] == key.shape[:3]
    return given if fits else None


def scales_in_sequences(function: Any, arguments: Any, named: Any) -> bool:
    """Whether a call is attention of several queries, which is better recorded row by row than as part of a cell."""
    if function is not F.scaled_dot_product_attention:
        return False
    given = _plain(arguments, named)
    return given is not None and given["query"].shape[2] > 1


def _record(_function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """Row by row; NotImplemented where it has to run as it is."""
    given = _plain(arguments, named)
    if given is None:
        return NotImplemented
    query, key, value = (given[name] for name in _NAMES[:3])
    recorder = next((one.recorder for one in (query, key, value) if type(one) is LazyTensor), None)
    if recorder is None or recorder.finished or torch._C._is_any_autocast_enabled():
        return NotImplemented
    try:
        return _row_by_row(recorder, query, key, value, given)
    except (CellError, RuntimeError):  # RuntimeError: heads that do not lie side by side in rows
        return NotImplemented


def _row_by_row(recorder: Recorder, query: Any, key: Any, value: Any, given: dict[str, Any]) -> torch.Tensor:
    sequences, heads, steps, width = query.shape
    mask: Any = given.get("attn_mask")
    if type(mask) is torch.Tensor:
        while mask.dim() > 2 and mask.shape[0] == 1:
            mask = mask[0]
        mask = ~mask if mask.dtype is torch.bool else mask  # here True lets through
    causal = bool(given.get("is_causal"))
    if causal:
        if mask is not None:
            raise CellError("a mask of attention that is causal anyway")
        mask = torch.ones(steps, key.shape[2], dtype=torch.bool).tril().logical_not()
    keys = attended(mask, None, False, (sequences, steps, key.shape[2]))
    if keys is None:
        raise CellError("a mask that is not about rows alone")
    columns = []
    for one in (query, key, value):
        rows = one.transpose(1, 2)
        columns.append(values_of_rows(recorder, rows.view(*rows.shape[:2], heads * rows.shape[3])).tolist())
    scale = given.get("scale")
    scale = 1 / sqrt(width) if scale is None else float(scale)
    of_query, of_value = heads * width, heads * value.shape[3]
    site = site_of(recorder, "key_and_value", None, "side by side", SideBySide)
    pairs = projected(recorder, site, columns[1:], [of_query, of_value])
    site = site_of(recorder, "attend", None, (heads, scale), lambda: Attend(heads, scale))
    results = attending(recorder, site, columns[0], pairs, keys, (of_query, of_query + of_value))
    found = tensor_of_grid(recorder, torch.tensor(results), (of_value,), query.dtype)
    return found.view(sequences, steps, heads, -1).transpose(1, 2)


FUNCTIONS[F.scaled_dot_product_attention] = _record
