"""Ordinary tensors that recorded values are written into: ``states = torch.zeros(n, H); states[i] = h``.

The object becomes a recorded tensor, under whatever names it has, as long as elements run; then it is the ordinary
tensor again, with what was written. That takes a tensor whose memory nobody else sees: writing into any other is a
break, which computes what is written.
"""

from __future__ import annotations

import sys
import weakref
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from edbatch_tvm.recording.lazy import LazyTensor, geometry_of, lazy_value
from edbatch_tvm.recording.specs import RowsSpec, rows_of, spec_of
from edbatch_tvm.recording.strided_storage import Storage, elements

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder

_MOST_ROWS = 4096
_OWN = 2
"""Owners of the memory of a tensor that nobody shares: it, and who asks."""


def adopt(recorder: Recorder, tensor: torch.Tensor, by_rows: bool, leading: int = 1) -> bool:
    """Let an ordinary tensor be a recorded one, with the same numbers; False if others see its memory.

    So it is if it has another dtype than the model.

    Parameters
    ----------
    by_rows : bool
        Whether its rows are written one by one; numbers, if it has one dimension. They are along the first dimension
        whose extent is not 1.
    leading : int
        Along how many dimensions they are written, if more than that one.
    """
    if tensor.dtype is not recorder.dtype or not _is_alone(tensor):
        return False
    shape, dtype = tensor.shape, tensor.dtype
    count, row, rows = _division(shape, dtype, by_rows, leading)
    values = recorder.outside.parts(tensor, count, row)
    made = lazy_value(recorder, 0, spec_of(shape, dtype))
    made.geometry = whole = made.spec.geometry
    of_list = (True, whole, rows) if type(rows) is RowsSpec else (rows,)
    made.held = Storage(values, row.numel(), *of_list)
    try:
        torch.utils.swap_tensors(tensor, made)
    except RuntimeError:
        return False
    lazy: LazyTensor = tensor
    recorder.adopted.append((lazy, made))
    return True


@lru_cache(1 << 12)
def _division(
    size: torch.Size, dtype: torch.dtype, by_rows: bool, leading: int
) -> tuple[int, torch.Size, RowsSpec | bool]:
    """How a tensor is divided into rows: how many, their shape, and the spec of such a list, if they are one.

    Rows along several dimensions are a list without a spec: True. A tensor that is no list is one row: False.
    """
    at = next((dim for dim, extent in enumerate(size[:-1]) if extent != 1), 0)
    last = max(at + 1, min(leading, len(size) - 1))  # a row is no single number, if there are several dimensions
    count = elements(size[:last])
    if count > _MOST_ROWS:
        last, count = at + 1, elements(size[: at + 1])
    if not (by_rows and len(size) > 0 and 1 <= count <= _MOST_ROWS):
        return 1, size, False
    if last != at + 1:
        return count, size[last:], True
    return count, size[last:], rows_of(spec_of((*size[:at], *size[at + 1 :]), dtype), at)


def _is_alone(tensor: torch.Tensor) -> bool:
    if not tensor.is_cpu or tensor.layout is not torch.strided:
        return False
    if tensor._base is not None or tensor.requires_grad or not tensor.is_contiguous() or tensor.numel() == 0:
        return False
    if weakref.getweakrefcount(tensor) or vars(tensor):
        return False
    storage = tensor.untyped_storage()
    if storage.nbytes() != tensor.numel() * tensor.itemsize or not storage.resizable():
        return False
    return torch._C._storage_Use_Count(storage._cdata) == _OWN


def _holders(pairs: list[tuple[Any, Any]], place: int) -> int:
    """How many hold the first of a pair, this code counted."""
    return sys.getrefcount(pairs[place][0])


_NOBODY = _holders([(object(), None)], 0)
"""Where nobody else holds it."""


def give_back(recorder: Recorder) -> None:
    """Let the tensors be ordinary ones again, with what was written into them; those that somebody still has."""
    held = [pair for place, pair in enumerate(recorder.adopted) if _holders(recorder.adopted, place) > _NOBODY]
    left = []
    for lazy, real in held:
        if type(lazy) is LazyTensor:
            content = lazy.computed()
            if content.shape != real.shape:
                real = real.as_strided(*geometry_of(lazy))
            real.copy_(content)
            try:
                torch.utils.swap_tensors(lazy, real)
            except RuntimeError:  # a view of it is alive
                left.append((lazy, real))
    recorder.adopted = left
