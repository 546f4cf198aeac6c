"""What elements have waited for: values, and answers to questions about them, taken out of a round all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edbatch_tvm.recording.computed import Computed
from edbatch_tvm.recording.specs import TensorSpec

if TYPE_CHECKING:
    from edbatch_tvm.recording.lazy import LazyTensor


def values_of(computed: Computed, tensors: Sequence[LazyTensor]) -> dict[int, tuple[TensorSpec, torch.Tensor]]:
    """The values of tensors that are one value each, by number, and what specs they are of."""
    found: dict[int, tuple[TensorSpec, torch.Tensor]] = {}
    alike: dict[TensorSpec, list[int]] = {}
    for tensor in tensors:
        alike.setdefault(tensor.spec, []).append(tensor.value)
    for spec, wanted in alike.items():
        for values, table in _tables(computed, spec, wanted):
            parts = table.reshape(len(values), *spec.shape).unbind()
            found.update(zip(values, [(spec, part) for part in parts], strict=True))
    return found


def answers_to(computed: Computed, asked: Sequence[tuple[Any, LazyTensor]]) -> dict[int, torch.Tensor]:
    """What functions make of the elements of tensors, by number of the value: see :meth:`Recorder.answer`."""
    if not asked:
        return {}
    together = computed.extremes_of(asked)
    if together is not None:
        wanted, places = together
        return dict(zip(wanted, torch.from_numpy(places).unbind(), strict=True))
    found: dict[int, torch.Tensor] = {}
    alike: dict[tuple[Any, TensorSpec], list[int]] = {}
    for question, tensor in asked:
        alike.setdefault((question, tensor.spec), []).append(tensor.value)
    for (question, spec), wanted in alike.items():
        for values, table in _tables(computed, spec, wanted):
            found.update(zip(values, question(table, 1).unbind(), strict=True))
    return found


def _tables(computed: Computed, spec: TensorSpec, values: list[int]) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Values of one spec in tables, one a row."""
    together = computed.table_of(values, spec.size)
    if together is not None:
        yield values, spec.decoded(torch.from_numpy(together))
        return
    for members, rows in computed.rows_of(np.array(values, np.int64)):
        own = values if len(members) == len(values) else [values[member] for member in members.tolist()]
        yield own, spec.decoded(torch.from_numpy(rows))
