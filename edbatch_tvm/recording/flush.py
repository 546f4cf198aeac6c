"""Compute what is recorded: one instance graph of everything, run as batches."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch

from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.graph.validate import check_attributes
from edbatch_tvm.recording.computed import Round
from edbatch_tvm.recording.failures import bad_index, failed_call
from edbatch_tvm.recording.recorded_together import JoinedContents
from edbatch_tvm.recording.specs import spec_of
from edbatch_tvm.recording.value_tables import numbered
from edbatch_tvm.runtime import Model, Result
from edbatch_tvm.training import TrainingResult
from edbatch_tvm.training.graph_rows import arenas_of

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder


def compute_batched(recorder: Recorder) -> Result | None:
    """Compute everything that is recorded as batches; None if nothing is."""
    records = recorder.records
    if not recorder.types and (records is None or not records.computed):
        recorder.records = None
        if records is not None:
            records.take(None)
        return None
    model = recorder.library.compiled()
    if model is None:  # a cell cannot be compiled: no more calls of it are recorded
        compute_eagerly(recorder)
        return None if records is None else compute_batched(recorder)
    recorder.computed.keep()
    graphs, nodes, external = [], 0, 0
    ids = arenas = np.empty(0, np.int64)
    if recorder.types:
        graph, ids, arenas = graph_of(recorder, model)
        # First: the values of the first graph are called the same among all.
        graphs, nodes, external = [graph], graph.num_nodes, len(graph.external_row)
    if records is not None:
        graphs += records.graphs(model)
        recorder.records = None
        if not graphs:
            records.take(None)
            return None
    prepared = model.prepare(graphs)
    joined = JoinedContents([] if records is None else records.computed, nodes, external)
    joined.read_again(prepared.whole)
    result = model.run(prepared)  # not in one call: the plan is read below
    if recorder.tape is not None:
        ids, arenas = _saved(result, ids)
        operands = np.array(recorder.operands, np.int64)
        assert isinstance(result, TrainingResult)
        computed = recorder.tape.computed(result, recorder.done, ids, operands, joined)
    if recorder.types:
        recorder.finish_round(Round(recorder.done, arenas, result.plan.value_row[ids], result.arena))
    if records is not None:
        records.take(result, None if recorder.tape is None else computed)
    return result


def _saved(result: Result, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of the cells that were recorded among those of the graph that ran, which saves more; and their arenas."""
    ids = result._in_graph(ids)
    return ids, arenas_of(result.graph, ids)


def compute_eagerly(recorder: Recorder) -> None:
    """Compute everything that is recorded by the model's own code, node after node."""
    recorder.settle()
    cells = recorder.library.cells
    made: list[torch.Tensor] = []
    tape = recorder.tape
    attributes = {type_id: iter(entries) for type_id, entries in recorder.attributes.items()}

    def value(number: int) -> torch.Tensor:
        if number >= recorder.done:
            return made[number - recorder.done]
        flat = recorder.flat(number)
        if tape is None:
            return flat
        return tape.tensors([number], flat[None], spec_of(flat.shape, flat.dtype))[0]

    with nullcontext() if tape is not None else torch.no_grad():
        begin = 0
        for node, (type_id, end) in enumerate(zip(recorder.types, recorder.ends, strict=True)):
            given = [value(number) for number in recorder.operands[begin:end]]
            cell, begin = cells[type_id], end
            numbers = [next(attributes[type_id]) for _ in range(cell.attributes)]
            try:
                first = recorder.done + len(made)
                made += cell.evaluate(given, numbers)
                if tape is not None:
                    made[first - recorder.done :] = [
                        one.detach() if tape.required.is_detached(number) else one
                        for number, one in enumerate(made[first - recorder.done :], first)
                    ]
            except Exception as error:
                raise failed_call(recorder, node, numbers, error) from error
    # An array for every value.
    arrays = [one.detach().numpy()[None] for one in made]
    if tape is not None:
        tape.computed_eagerly(recorder.done, made)
    recorder.finish_round(Round(recorder.done, np.arange(len(made)), np.zeros(len(made), np.int64), arrays.__getitem__))


def graph_of(recorder: Recorder, model: Model) -> tuple[InstanceGraph, np.ndarray, np.ndarray]:
    """The instance graph of what is recorded, the graph's value for each of the recorder's, and the arena of each."""
    signature = model.cells if recorder.library.training else model.signature
    node_type, ids, arenas = numbered(recorder.types, recorder.library.code.type_ids, signature)
    operands = np.array(recorder.operands, np.int64)
    operand_ptr = np.zeros(len(node_type) + 1, np.int32)
    operand_ptr[1:] = recorder.ends
    outside = recorder.outside
    rows = outside.followed.keys() | (recorder.tape.externals.keys() if recorder.tape is not None else ())
    operand_value, external = outside.tables.operands(
        signature, operands, recorder.done, ids, outside.places(), recorder.computed.places(), rows
    )
    attributes = _attributes(recorder, signature)
    graph = InstanceGraph(node_type, operand_ptr, operand_value, signature, attributes=attributes, **external)
    # Cells are called with what they take, and what they take is there: only the attributes are the user's.
    try:
        check_attributes(graph)
    except GraphError as error:
        raise bad_index(recorder, graph, error) from None
    graph.checked = True
    return graph, ids, arenas


def _attributes(recorder: Recorder, signature: Signature) -> dict[tuple[int, str], np.ndarray]:
    """The attribute arrays of every type."""
    arrays = {}
    for cell_type, entries in recorder.attributes.items():
        type_id = int(recorder.library.code.type_ids[cell_type])
        attributes = signature[type_id].attributes
        for number, attribute in enumerate(attributes):
            column = entries[number :: len(attributes)]
            if set(map(type, column)) == {int}:
                stacked = np.array(column, np.int64).reshape(-1, *attribute.spec.shape)
            else:
                stacked = torch.stack([torch.as_tensor(entry) for entry in column]).numpy()
            arrays[type_id, attribute.name] = stacked.astype(attribute.spec.dtype, copy=False)
    return arrays
