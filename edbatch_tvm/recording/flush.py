"""Compute what is recorded: one instance graph of everything, run as batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from edbatch_tvm.graph import FIRST_EXTERNAL, InstanceGraph
from edbatch_tvm.graph.spec import Signature, ValueSpec
from edbatch_tvm.runtime import Model, Result

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder

UNTOLD = -1
"""Version of a tensor from outside that has none; the recorder has a copy of its own."""


class Epoch(Protocol):
    """The values of one flush; they are numbered from `first`."""

    first: int
    sizes: np.ndarray

    def tensor(self, value: int) -> torch.Tensor:
        """One value, flat."""

    def rows(self, values: np.ndarray) -> np.ndarray:
        """Values of one size as ``float32[len(values), size]``."""


class BatchedEpoch:
    """Values that lie in the arenas of a run.

    Attributes
    ----------
    first : int
    result : Result
    sizes : int array
        Number of elements of every value.
    """

    def __init__(self, first: int, result: Result, ids: np.ndarray, sizes: np.ndarray) -> None:
        self.first = first
        self.result = result
        self.sizes = sizes
        self._ids = ids

    def tensor(self, value: int) -> torch.Tensor:
        """One value, flat: memory of the arena."""
        return torch.from_numpy(self.result.value(int(self._ids[value - self.first])))

    def rows(self, values: np.ndarray) -> np.ndarray:
        """Values of one size as ``float32[len(values), size]``."""
        return self.result.values(self._ids[values - self.first])


class EagerEpoch:
    """Values that the model's own code computed, one node at a time."""

    def __init__(self, first: int, values: list[torch.Tensor]) -> None:
        self.first = first
        self.sizes = np.array([value.numel() for value in values], np.int64)
        self._values = values

    def tensor(self, value: int) -> torch.Tensor:
        """One value, flat."""
        return self._values[value - self.first]

    def rows(self, values: np.ndarray) -> np.ndarray:
        """Values of one size as ``float32[len(values), size]``."""
        return torch.stack([self._values[value - self.first] for value in values.tolist()]).numpy()


def compute_batched(recorder: Recorder) -> Result | None:
    """Compute everything that is recorded as batches; None if nothing is."""
    if not recorder.types:
        return None
    model = recorder.library.compiled()
    graph, ids = _graph(recorder, model)
    result = model([graph])
    sizes = np.array([spec.size for spec in _output_specs(recorder)], np.int64)
    recorder.finish_epoch(BatchedEpoch(recorder.done, result, ids, sizes))
    return result


def compute_eagerly(recorder: Recorder) -> None:
    """Compute everything that is recorded by the model's own code, node after node."""
    cells = recorder.library.cells
    made: list[torch.Tensor] = []
    attributes = {type_id: iter(rows) for type_id, rows in recorder.attributes.items()}
    operands = iter(recorder.operands)

    def value(number: int) -> torch.Tensor:
        if number < 0:
            recorder.check_unchanged(-1 - number)
            return recorder.externals[-1 - number][0].reshape(-1)
        return made[number - recorder.done] if number >= recorder.done else recorder.epoch_of(number).tensor(number)

    with torch.no_grad():
        for type_id, count in zip(recorder.types, recorder.counts, strict=True):
            given = [value(next(operands)) for _ in range(count)]
            made += cells[type_id].evaluate(given, next(attributes[type_id]) if type_id in attributes else ())
    recorder.finish_epoch(EagerEpoch(recorder.done, made))


def _output_specs(recorder: Recorder) -> list[Any]:
    cells = recorder.library.cells
    return [spec for type_id in recorder.types for spec in cells[type_id].outputs]


def _graph(recorder: Recorder, model: Model) -> tuple[InstanceGraph, np.ndarray]:
    """The instance graph of what is recorded, and the graph's value for each of the recorder's."""
    signature = model.signature
    node_type = np.array(recorder.types, np.int16)
    outputs = np.array([len(cell.outputs) for cell in signature], np.int32)[node_type]
    node = np.repeat(np.arange(len(node_type), dtype=np.int32), outputs)
    begin = np.cumsum(outputs) - outputs
    ids = node * np.int32(signature.stride) + np.arange(len(node), dtype=np.int32) - begin[node].astype(np.int32)
    operands = np.array(recorder.operands, np.int64)
    operand_ptr = np.zeros(len(node_type) + 1, np.int32)
    np.cumsum(recorder.counts, out=operand_ptr[1:])
    inside = operands >= recorder.done
    operand_value = np.empty(len(operands), np.int32)
    operand_value[inside] = ids[operands[inside] - recorder.done]
    external, number = np.unique(operands[~inside], return_inverse=True)
    operand_value[~inside] = FIRST_EXTERNAL - number
    graph = InstanceGraph(
        node_type,
        operand_ptr,
        operand_value,
        signature,
        attributes=_attributes(recorder, signature),
        **(_external_rows(recorder, signature, external) if len(external) else {}),
    )
    return graph, ids


def _attributes(recorder: Recorder, signature: Signature) -> dict[tuple[int, str], np.ndarray]:
    """The attribute arrays of every type."""
    arrays = {}
    for type_id, rows in recorder.attributes.items():
        for attribute, column in zip(signature[type_id].attributes, zip(*rows, strict=True), strict=True):
            if any(isinstance(entry, torch.Tensor) for entry in column):
                stacked = torch.stack([torch.as_tensor(entry) for entry in column]).numpy()
            else:
                stacked = np.array(column)
            arrays[type_id, attribute.name] = stacked.astype(attribute.spec.dtype, copy=False)
    return arrays


def _external_rows(recorder: Recorder, signature: Signature, external: np.ndarray) -> dict[str, Any]:
    """The tables of external rows for the recorder's values `external`: tensors from outside, and earlier values."""
    arenas = np.empty(len(external), np.int16)
    positions = np.empty(len(external), np.int32)
    data: list[list[np.ndarray]] = [[] for _ in signature.value_specs]
    filled = [0] * len(data)

    def place(members: np.ndarray, rows: np.ndarray) -> None:
        arena = signature.arena(ValueSpec((rows.shape[1],)))
        arenas[members] = arena
        positions[members] = filled[arena] + np.arange(len(rows))
        filled[arena] += len(rows)
        data[arena].append(rows)

    numbers = -1 - external[external < 0]
    by_spec: dict[Any, list[int]] = {}
    entries = [recorder.externals[number] for number in numbers.tolist()]
    for position, (tensor, spec, version) in enumerate(entries):
        if version != UNTOLD and tensor._version != version:
            recorder.check_unchanged(int(numbers[position]))
        by_spec.setdefault(spec, []).append(position)
    for spec, members in by_spec.items():
        stacked = torch.stack([entries[position][0] for position in members])
        place(np.array(members), stacked.detach().reshape(len(members), spec.size).numpy())
    for epoch, end in recorder.spans():
        members_of = np.flatnonzero((external >= epoch.first) & (external < end))
        sizes = epoch.sizes[external[members_of] - epoch.first]
        for size in np.unique(sizes):
            chosen = members_of[sizes == size]
            place(chosen, epoch.rows(external[chosen]))
    specs = signature.value_specs
    return {
        "external_spec": arenas,
        "external_row": positions,
        "external_data": tuple(
            np.concatenate(rows) if rows else np.empty((0, *spec.shape), spec.dtype)
            for rows, spec in zip(data, specs, strict=True)
        ),
    }
