"""Compute what is recorded: one instance graph of everything, run as batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph import FIRST_EXTERNAL, ZERO, InstanceGraph
from edbatch_tvm.graph.spec import Signature, ValueSpec
from edbatch_tvm.graph.validate import check_attributes
from edbatch_tvm.recording.failures import bad_index, failed_call
from edbatch_tvm.runtime import Model, Result

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder


class Epoch(Protocol):
    """The values of one flush; they are numbered from `first`.

    Values of one group lie in one two-dimensional array.
    """

    first: int
    group: np.ndarray
    row: np.ndarray

    def tensor(self, value: int) -> torch.Tensor:
        """One value, flat."""

    def rows(self, group: int) -> np.ndarray:
        """The array of a group."""


class BatchedEpoch:
    """Values that lie in the arenas of a run: a group is an arena.

    Attributes
    ----------
    first : int
    group, row : int arrays
        Where each value lies.
    """

    def __init__(self, first: int, result: Result, group: np.ndarray, row: np.ndarray) -> None:
        self.first = first
        self.group = group
        self.row = row
        self._result = result
        self._tensors: dict[int, torch.Tensor] = {}

    def tensor(self, value: int) -> torch.Tensor:
        """One value, flat: memory of the arena."""
        group = self.group.item(value - self.first)
        arena = self._tensors.get(group)
        if arena is None:
            arena = self._tensors[group] = torch.from_numpy(self._result.arena(group))
        return arena[self.row.item(value - self.first)]

    def rows(self, group: int) -> np.ndarray:
        """The array of a group."""
        return self._result.arena(group)


class EagerEpoch:
    """Values that the model's own code computed, one node at a time: a group is a value."""

    def __init__(self, first: int, values: list[torch.Tensor]) -> None:
        self.first = first
        self.group = np.arange(len(values))
        self.row = np.zeros(len(values), np.int64)
        self._values = values

    def tensor(self, value: int) -> torch.Tensor:
        """One value, flat."""
        return self._values[value - self.first]

    def rows(self, group: int) -> np.ndarray:
        """The array of a group."""
        return self._values[group].numpy()[None]


def rows_of_values(epochs: Sequence[Epoch], values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Computed values, those together that lie together: positions in `values`, and a copy of their rows."""
    epoch_of = np.searchsorted([epoch.first for epoch in epochs], values, "right") - 1
    group, row = np.empty((2, len(values)), np.int64)
    present = np.unique(epoch_of).tolist()
    for number in present:
        members = epoch_of == number if len(present) > 1 else slice(None)
        within = values[members] - epochs[number].first
        group[members], row[members] = epochs[number].group[within], epochs[number].row[within]
    # Stable, so that values stay in order: what was computed together is often read together.
    joint = epoch_of * (int(group.max(initial=0)) + 1) + group
    order = np.argsort(joint, kind="stable")
    begins = np.flatnonzero(np.diff(joint[order], prepend=-1))
    for members in np.split(order, begins[1:]) if len(order) else ():
        source = epochs[int(epoch_of[members[0]])].rows(int(group[members[0]]))
        yield members, source[row[members]]


def compute_batched(recorder: Recorder) -> Result | None:
    """Compute everything that is recorded as batches; None if nothing is."""
    if not recorder.types:
        return None
    model = recorder.library.compiled()
    if model is None:  # a cell cannot be compiled: no more calls of it are recorded
        compute_eagerly(recorder)
        return None
    graph, ids = _graph(recorder, model)
    result = model([graph])
    group = model.signature.output_arena.ravel()[_slots(graph, ids)]
    recorder.finish_epoch(BatchedEpoch(recorder.done, result, group, result.plan.value_row[ids]))
    return result


def compute_eagerly(recorder: Recorder) -> None:
    """Compute everything that is recorded by the model's own code, node after node."""
    cells = recorder.library.cells
    made: list[torch.Tensor] = []
    attributes = {type_id: iter(entries) for type_id, entries in recorder.attributes.items()}

    def value(number: int) -> torch.Tensor:
        if number < 0:
            return recorder.externals[-1 - number][0].reshape(-1)
        return made[number - recorder.done] if number >= recorder.done else recorder.epoch_of(number).tensor(number)

    with torch.no_grad():
        begin = 0
        for node, (type_id, end) in enumerate(zip(recorder.types, recorder.ends, strict=True)):
            given = [value(number) for number in recorder.operands[begin:end]]
            cell, begin = cells[type_id], end
            numbers = [next(attributes[type_id]) for _ in range(cell.attributes)]
            try:
                made += cell.evaluate(given, numbers)
            except Exception as error:
                raise failed_call(recorder, node, numbers, error) from error
    recorder.finish_epoch(EagerEpoch(recorder.done, made))


def _slots(graph: InstanceGraph, ids: np.ndarray) -> np.ndarray:
    """The output slots of values, numbered over all cells."""
    return graph.node_type[ids // graph.stride] * np.int64(graph.stride) + ids % graph.stride


def _graph(recorder: Recorder, model: Model) -> tuple[InstanceGraph, np.ndarray]:
    """The instance graph of what is recorded, and the graph's value for each of the recorder's."""
    signature = model.signature
    node_type = recorder.library.type_ids[np.array(recorder.types, np.int64)]
    outputs = (signature.output_arena >= 0).sum(1)[node_type]
    node = np.repeat(np.arange(len(node_type), dtype=np.int32), outputs)
    begin = np.cumsum(outputs) - outputs
    ids = node * np.int32(signature.stride) + np.arange(len(node), dtype=np.int32) - begin[node].astype(np.int32)
    operands = np.array(recorder.operands, np.int64)
    operand_ptr = np.zeros(len(node_type) + 1, np.int32)
    operand_ptr[1:] = recorder.ends
    inside = operands >= recorder.done
    external: dict[str, Any] = {}
    if inside.all():
        operand_value = ids[operands - recorder.done]
    else:
        operand_value = np.empty(len(operands), np.int32)
        operand_value[inside] = ids[operands[inside] - recorder.done]
        values, number = np.unique(operands[~inside], return_inverse=True)
        rows, external = _external_rows(recorder, signature, values)
        operand_value[~inside] = rows[number]
    attributes = _attributes(recorder, signature)
    graph = InstanceGraph(node_type, operand_ptr, operand_value, signature, attributes=attributes, **external)
    # Cells are called with what they take, and what they take is there: only the attributes are the user's.
    try:
        check_attributes(graph)
    except GraphError as error:
        raise bad_index(recorder, graph, error) from None
    graph.checked = True
    return graph, ids


def _attributes(recorder: Recorder, signature: Signature) -> dict[tuple[int, str], np.ndarray]:
    """The attribute arrays of every type."""
    arrays = {}
    for cell_type, entries in recorder.attributes.items():
        type_id = int(recorder.library.type_ids[cell_type])
        attributes = signature[type_id].attributes
        for number, attribute in enumerate(attributes):
            column = entries[number :: len(attributes)]
            if set(map(type, column)) == {int}:
                stacked = np.array(column, np.int64)
            else:
                stacked = torch.stack([torch.as_tensor(entry) for entry in column]).numpy()
            arrays[type_id, attribute.name] = stacked.astype(attribute.spec.dtype, copy=False)
    return arrays


def _external_rows(recorder: Recorder, signature: Signature, external: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """The recorder's values `external`, tensors from outside and earlier values, as operands of a graph.

    Returns
    -------
    operands : int32 array
        What they are called in the graph: the zero state, or external rows.
    tables : dict
        The tables of external rows.
    """
    operands = np.full(len(external), ZERO, np.int32)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    # Sorted, so tensors from outside come first.
    outside = int(np.searchsorted(external, 0))
    entries = [recorder.externals[-1 - value] for value in external[:outside].tolist()]
    by_shape: dict[torch.Size, list[int]] = {}
    for position, (_, spec) in enumerate(entries):
        by_shape.setdefault(spec.shape, []).append(position)
    for shape, members in by_shape.items():
        rows = torch.stack([entries[position][0] for position in members])
        rows = rows.reshape(len(members), shape.numel()).numpy()
        # First states are zeros, one made for each leaf: they need no rows. (Not -0.0, which may matter.)
        other = rows.view(np.int32).any(1)
        found.append((np.array(members)[other], rows if other.all() else rows[other]))
    if outside < len(external):
        found += [(later + outside, rows) for later, rows in rows_of_values(recorder.epochs, external[outside:])]
    arenas, positions = [], []
    data: list[list[np.ndarray]] = [[] for _ in signature.value_specs]
    placed = 0
    for within, rows in found:
        operands[within] = FIRST_EXTERNAL - np.arange(placed, placed + len(rows), dtype=np.int32)
        placed += len(rows)
        arena = signature.arena(ValueSpec((rows.shape[1],)))
        begin = sum(map(len, data[arena]))
        arenas.append(np.full(len(rows), arena, np.int16))
        positions.append(np.arange(begin, begin + len(rows), dtype=np.int32))
        data[arena].append(rows)
    return operands, {
        "external_spec": np.concatenate(arenas),
        "external_row": np.concatenate(positions),
        "external_data": tuple(
            (rows[0] if len(rows) == 1 else np.concatenate(rows)) if rows else np.empty((0, *spec.shape), spec.dtype)
            for rows, spec in zip(data, signature.value_specs, strict=True)
        ),
    }
