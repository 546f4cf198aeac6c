"""Views of recorded tensors: where they lie in their storage.

PyTorch itself says where, on a tensor without memory that lies as the recorded one does; each answer is kept.
"""

from __future__ import annotations

from typing import Any

import torch

from edbatch_tvm.errors import RecordingError
from edbatch_tvm.recording.lazy import FUNCTIONS, VIEWS, LazyTensor, geometry_of, lazy_view, storage_of
from edbatch_tvm.recording.strided_storage import Geometry, last_element

GEOMETRIES: dict[Any, list[Geometry] | Geometry] = {}
_MOST_GEOMETRIES = 100_000


def geometries(operator: Any, geometry: Geometry, rest: Any, named: dict[str, Any]) -> list[Geometry] | Geometry:
    """Where the views lie that an operator makes of a tensor."""
    try:
        key = (operator, geometry, rest, *named.items())
        found = GEOMETRIES.get(key)
    except TypeError:
        key = (operator, geometry, str(rest), *named.items())
        found = GEOMETRIES.get(key)
    if found is None:
        size, stride, offset = geometry
        source = torch.empty_strided(size, stride, device="meta")
        if offset:
            source = torch.empty(1, device="meta").as_strided(size, stride, offset)
        made = operator(source, *rest, **named)
        found = _geometry(made) if isinstance(made, torch.Tensor) else [_geometry(one) for one in made]
        if len(GEOMETRIES) < _MOST_GEOMETRIES:
            GEOMETRIES[key] = found
    return found


def _geometry(tensor: torch.Tensor) -> Geometry:
    return tuple(tensor.shape), tuple(tensor.stride()), tensor.storage_offset()


def view(operator: Any, source: LazyTensor, rest: Any, named: dict[str, Any]) -> Any:
    """What an operator makes of a recorded tensor, if that is views of it."""
    if "dtype" in named or any(isinstance(one, torch.dtype) for one in rest):
        given = f"view(dtype) of a recorded tensor of shape {list(source.shape)}"
        raise RecordingError(given, "its elements as they are", "use .to(dtype)")
    found = geometries(operator, geometry_of(source), rest, named)
    recorder, storage, dtype = source.recorder, storage_of(source), source.spec.dtype
    if operator is torch.ops.aten.as_strided.default:  # the only view that may reach beyond the memory
        _require_inside(found, len(storage.rows) * storage.row)  # type: ignore[arg-type]
    if type(found) is list:
        return [lazy_view(recorder, storage, geometry, dtype) for geometry in found]
    return lazy_view(recorder, storage, found, dtype)  # type: ignore[arg-type]


def _require_inside(geometry: Geometry, elements: int) -> None:
    size, stride, offset = geometry
    end = offset + last_element(size, stride) + 1
    if 0 not in size and end > elements:
        raise RuntimeError(f"as_strided: {end} elements from the begin of a recorded storage of {elements}")


# Functions that PyTorch need not take apart ----------------------------------------------------------------------


def _seen(function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """A view that takes whole numbers besides the tensor."""
    source = arguments[0] if arguments else None
    if type(source) is not LazyTensor or not all(map(_is_plain, (*arguments[1:], *named.values()))):
        return NotImplemented
    made = view(function, source, arguments[1:], named)
    return tuple(made) if type(made) is list else made


def _is_plain(argument: Any) -> bool:
    kind = type(argument)
    return kind is int or ((kind is tuple or kind is list or kind is torch.Size) and all(map(_is_int, argument)))


def _is_int(argument: Any) -> bool:
    return type(argument) is int


def _chosen(function: Any, arguments: Any, named: dict[str, Any]) -> Any:
    """``tensor[index]`` with whole numbers and slices, or with vectors of them that say which rows."""
    source, index = arguments
    if type(source) is not LazyTensor:
        return NotImplemented
    parts = index if type(index) is tuple else (index,)
    key = basic_key(parts)
    return ROWS_AT[0](source, parts) if key is None else view(at_index, source, (key,), named)


ROWS_AT: list[Any] = []
"""What takes indices that are no views (:mod:`edbatch_tvm.recording.indexed_rows`)."""


def basic_key(parts: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """An index of whole numbers and slices as :func:`at_index` takes it, which has a hash; None for others."""
    if not all(map(_is_basic, parts)):
        return None
    return tuple((one.start, one.stop, one.step) if type(one) is slice else one for one in parts)


def _is_basic(part: Any) -> bool:
    kind = type(part)
    if kind is slice:
        return all(one is None or type(one) is int for one in (part.start, part.stop, part.step))
    return kind is int or part is None or part is Ellipsis


def at_index(tensor: torch.Tensor, key: tuple[Any, ...]) -> torch.Tensor:
    """``tensor[key]``, where slices are tuples of start, stop and step."""
    return tensor[tuple(slice(*one) if type(one) is tuple else one for one in key)]


_VIEWING = ("unsqueeze squeeze view transpose t permute narrow select expand unbind split chunk").split()  # noqa: SIM905


def _table() -> None:
    for name in _VIEWING:
        for owner in (torch.Tensor, torch):
            function = getattr(owner, name, None)
            if function is not None:
                FUNCTIONS[function] = _seen
                VIEWS[function] = function
    FUNCTIONS[torch.Tensor.__getitem__] = _chosen
    VIEWS[torch.Tensor.__getitem__] = at_index


_table()
