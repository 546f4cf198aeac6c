"""Gradients of tensors without elements, and of what is made of them, such as their sum, which is 0.

Such a tensor requires a gradient if something that requires one went into it, as in PyTorch. No value of the graph is
in it, so its storage has what went into it, its *sources*. Where it leaves the recorded graph, autograd's node of it
leads to these, which get gradients of zeros, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from edbatch_tvm.recording.describe import described
from edbatch_tvm.recording.detached import DetachedStorage
from edbatch_tvm.recording.followed_parameters import FollowedTensor
from edbatch_tvm.recording.lazy import LazyTensor, Source, geometry_of, lazy_view
from edbatch_tvm.recording.recorded_parameters import own_parameter
from edbatch_tvm.recording.strided_storage import Geometry, Storage, dense_strides

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder
    from edbatch_tvm.recording.site import Site


class NoRows(Storage):
    """Memory of a tensor without elements that requires a gradient.

    Attributes
    ----------
    sources : sequence of Source
    """

    __slots__ = ("sources",)

    def __init__(self, of: Storage, sources: Sequence[Source]) -> None:
        super().__init__([], of.row, of.listed, of.whole, of.spec)
        self.sources = sources


_NO_ROWS = Storage([], 0)


def sources_of(recorder: Recorder, arguments: Any) -> list[Source]:
    """The tensors among arguments that require a gradient."""
    return [source for leaf in pytree.tree_leaves(arguments) for source in _sources(recorder, leaf)]


def _sources(recorder: Recorder, leaf: Any) -> Iterator[Source]:
    if type(leaf) is FollowedTensor:
        leaf = leaf.parameter
    if not isinstance(leaf, torch.Tensor) or not leaf.requires_grad:
        return
    if type(leaf) is not LazyTensor or leaf.recorder is not recorder:
        yield own_parameter(leaf)
    elif leaf.held is None:
        yield leaf.value, leaf.spec.size
    else:
        assert recorder.tape is not None
        required = recorder.tape.required
        yield from ((value, leaf.held.row) for value in leaf.held.rows if value in required)
        yield from leaf.held.sources


def is_noted(recorder: Recorder) -> bool:
    """Whether it matters now what requires a gradient."""
    return recorder.tape is not None and recorder.tape.required.is_on and not recorder.finished


def with_sources(recorder: Recorder, result: Any, sources: Sequence[Source]) -> Any:
    """A tensor; if it has no elements, it requires a gradient if there are `sources`."""
    if not sources or not isinstance(result, torch.Tensor) or result.numel() or not result.is_floating_point():
        return result
    held, geometry = _NO_ROWS, (tuple(result.shape), tuple(result.stride()), 0)
    if type(result) is LazyTensor and result.held is not None:
        held, geometry = result.held, geometry_of(result)
    return _view(recorder, NoRows(held, sources), geometry, result.dtype)


def as_called(recorder: Recorder, site: Site, arguments: tuple[Any, ...], result: Any) -> Any:
    """What a call returns; what of it has no elements requires a gradient if something that went into it does.

    That are its arguments, and the parameters that its code uses.
    """
    if not is_noted(recorder):
        return result
    key, _, attributes = described(recorder, arguments, site.integers_vary)
    used = recorder.library.parameters_used(site, key, attributes)
    given = sources_of(recorder, arguments)
    leaves, structure = pytree.tree_flatten(result)
    if len(used) != len(leaves):
        used = [[] for _ in leaves]
    made = [with_sources(recorder, leaf, [*given, *own]) for leaf, own in zip(leaves, used, strict=True)]
    return pytree.tree_unflatten(made, structure)


def rows_of_arguments(recorder: Recorder, rows: LazyTensor, arguments: Any) -> LazyTensor:
    """Rows that were among arguments; if there are none, they require a gradient if these do."""
    if rows.spec.size or not is_noted(recorder):
        return rows
    made: LazyTensor = with_sources(recorder, rows, sources_of(recorder, arguments))
    return made


def no_elements(recorder: Recorder, source: LazyTensor) -> torch.Tensor:
    """A copy of a tensor without elements."""
    shape = tuple(source.shape)
    if not is_noted(recorder) or not source.requires_grad:
        return torch.empty(shape, dtype=source.dtype)
    held = NoRows(_NO_ROWS, list(_sources(recorder, source)))
    return _view(recorder, held, (shape, dense_strides(shape), 0), source.dtype)


def _view(recorder: Recorder, storage: Storage, geometry: Geometry, dtype: torch.dtype) -> LazyTensor:
    made = lazy_view(recorder, storage, geometry, dtype)
    if storage.whole == geometry:  # which is told by identity
        made.geometry = storage.whole
    return made


def note(recorder: Recorder, arguments: Any, result: Any) -> None:
    """Let values that were made of tensors without elements require a gradient if these do."""
    none = [one for one in pytree.tree_leaves(arguments) if isinstance(one, torch.Tensor) and not one.numel()]
    sources = sources_of(recorder, none) if none else []
    if not sources:
        return
    assert recorder.tape is not None
    for leaf in pytree.tree_leaves(result):
        if type(leaf) is LazyTensor and leaf.spec.floats:
            values = [leaf.value] if leaf.held is None else leaf.held.rows
            recorder.tape.required.made_of_none(values, sources)


def sources_in(storage: Storage) -> list[Source]:
    """What went into a storage: its rows, and what went into it although it has none of it."""
    if isinstance(storage, DetachedStorage) and storage.is_detached:
        return []
    return [*((value, storage.row) for value in storage.rows), *storage.sources]
