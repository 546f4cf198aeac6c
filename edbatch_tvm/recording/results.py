"""What a minibatch returns: recorded tensors computed, in whatever they are in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from edbatch_tvm.recording.lazy import LazyTensor
from edbatch_tvm.recording.recorded_parameters import RecordedParameter
from edbatch_tvm.recording.storages import value_of_row

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder
    from edbatch_tvm.recording.specs import TensorSpec

_PLAIN = frozenset({int, float, str, bool, type(None), torch.Tensor})


def computed_results(results: Any, recorder: Recorder) -> Any:
    """`results` with recorded tensors computed: copies that share no memory with the arenas.

    Containers without recorded tensors stay the objects that they are.
    """
    by_spec: dict[TensorSpec, list[LazyTensor]] = {}
    numbers: dict[int, int] = {}
    _collect(results, recorder, by_spec, numbers)
    tensors: dict[int, torch.Tensor] = {}
    for spec, members in by_spec.items():
        values = np.array([numbers[id(member)] for member in members], np.int64)
        if recorder.tape is not None:
            rows = torch.empty(len(values), spec.size, dtype=recorder.dtype)
            for positions, found in recorder.computed.rows_of(values):
                rows[torch.from_numpy(positions)] = torch.from_numpy(found).to(rows.dtype)
            made = recorder.tape.tensors(values.tolist(), rows, spec)
            tensors.update((id(member), tensor) for member, tensor in zip(members, made, strict=True))
            continue
        for positions, found in recorder.computed.rows_of(values):
            parts = spec.decoded(torch.from_numpy(found).to(recorder.dtype)).reshape(len(found), *spec.shape).unbind()
            tensors.update((id(members[at]), part) for at, part in zip(positions.tolist(), parts, strict=True))
    return _replaced(results, tensors)


def _collect(
    thing: Any, recorder: Recorder, by_spec: dict[TensorSpec, list[LazyTensor]], numbers: dict[int, int]
) -> None:
    """The tensors that are one value each, and the number of the value of each by its id."""
    kind = type(thing)
    if kind in _PLAIN:
        return
    if kind is LazyTensor:
        if thing.recorder is recorder:
            value = thing.value if thing.held is None else value_of_row(thing)
            if value is not None and value >= 0 and not _of_mixed_memory(thing, value):
                by_spec.setdefault(thing.spec, []).append(thing)
                numbers[id(thing)] = value
    elif kind is list or kind is tuple:
        for item in thing:
            if type(item) not in _PLAIN:
                _collect(item, recorder, by_spec, numbers)
    elif not pytree.tree_is_leaf(thing):
        for leaf in pytree.tree_leaves(thing):
            _collect(leaf, recorder, by_spec, numbers)


def _of_mixed_memory(tensor: LazyTensor, value: int) -> bool:
    """Whether a tensor requires a gradient for what else lies in its memory."""
    tape = tensor.recorder.tape
    return tape is not None and tensor.held is not None and value not in tape.required and tensor.requires_grad


def _replaced(thing: Any, tensors: dict[int, torch.Tensor]) -> Any:
    kind = type(thing)
    if kind in _PLAIN:
        return thing
    if kind is LazyTensor:
        found = tensors.get(id(thing))
        return found if found is not None else thing.computed()
    if kind is RecordedParameter:
        return thing.parameter
    if kind is list or kind is tuple:
        items = [item if type(item) in _PLAIN else _replaced(item, tensors) for item in thing]
        if all(new is old for new, old in zip(items, thing, strict=True)):
            return thing
        return items if kind is list else tuple(items)
    if pytree.tree_is_leaf(thing):
        return thing
    leaves, structure = pytree.tree_flatten(thing)
    items = [_replaced(leaf, tensors) for leaf in leaves]
    if all(new is old for new, old in zip(items, leaves, strict=True)):
        return thing
    return pytree.tree_unflatten(items, structure)
