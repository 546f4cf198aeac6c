"""A minibatch of nothing but elements that were recorded before, where gradients are recorded.

Their graphs are merged by what was packed of each when it was made, and what they read of parameters goes from there
into the minibatch. A record that also reads other tensors is for :mod:`~edbatch_tvm.recording.flush`.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from edbatch_tvm.graph import FIRST_EXTERNAL, InstanceGraph
from edbatch_tvm.graph.array_addresses import EDGES
from edbatch_tvm.graph.merge import merge_rows
from edbatch_tvm.graph.native_merge import merger
from edbatch_tvm.recording.gradient_rounds import CompiledRound, RoundGradients
from edbatch_tvm.recording.reads import NumberedReads, ReadKind, ranges_of
from edbatch_tvm.recording.recorded_together import RecordedElements
from edbatch_tvm.training.model import TrainingModel, TrainingResult

if TYPE_CHECKING:
    from edbatch_tvm.recording.library import Library
    from edbatch_tvm.recording.recorded_elements import Content
    from edbatch_tvm.runtime import Report

_NONE = np.empty(0, np.int64)


def run_records(library: Library, contents: Sequence[Content]) -> tuple[list[Any], Report] | None:
    """The results of records, and a report; None, and nothing done, where that is something for others."""
    records = RecordedElements(contents)
    model = library.compiled() if records.computed else None
    if not isinstance(model, TrainingModel):
        return None
    begin = perf_counter()
    found = _merged(library, records.computed, model)
    if found is None:
        return None
    result = model.run(model.prepare_merged(found[0], begin))
    assert isinstance(result, TrainingResult)
    gradients = RoundGradients(library, None, result, library.code.trained_weights(), _NONE, _NONE, {}, found[1])
    records.take(result, CompiledRound(0, gradients, None))
    return records.results, result.report


def _merged(
    library: Library, contents: Sequence[Content], model: TrainingModel
) -> tuple[InstanceGraph, NumberedReads] | None:
    """The graph of all, which has what is in parameters now, and what its external rows are."""
    for content in contents:
        if content.model is not model:
            content.graph(model)
    fast, rows = merger(), [content.row for content in contents]
    if fast is None:
        return None
    graph = merge_rows(fast, rows, contents[0].graph(model), model.signature)
    if graph is None:
        return None
    packed = [content.externals for content in contents]
    table = np.frombuffer(b"".join(packed), np.int64).reshape(-1, 2)
    count = len(table)
    if not count:
        return graph, NumberedReads([], _NONE)
    edges = np.frombuffer(b"".join([row for row in rows if row]), np.int64).reshape(len(rows), -1)[:, EDGES]
    lengths = np.array(list(map(len, packed)))
    begins = (np.cumsum(lengths) - lengths) // table[0].nbytes
    operands = graph.operand_value
    shift = np.repeat(begins.astype(np.int32), edges)
    np.subtract(operands, shift, out=operands, where=operands <= FIRST_EXTERNAL)
    return graph, _read(graph, library.read_kinds.kinds, table)


def _read(graph: InstanceGraph, kinds: Sequence[ReadKind], table: np.ndarray) -> NumberedReads:
    """Give a graph its external rows: each of a kind, and a row of that."""
    own, rows = table[:, 0], np.ascontiguousarray(table[:, 1])
    count, first = len(rows), int(own[0])
    signature = graph.signature
    assert signature is not None
    data = [np.empty((0, *spec.shape), spec.dtype) for spec in signature.value_specs]
    if (own == first).all():
        kind = kinds[first]
        arena = signature.arena(kind.spec)
        graph.external_spec = np.full(count, arena, np.int16)
        graph.external_row = np.arange(count, dtype=np.int32)
        data[arena] = _rows(kind, rows)
        ranges, numbers = ranges_of([(kind.parameter, kind.whole)]), rows
    else:
        used = np.flatnonzero(np.bincount(own)).tolist()
        ranges = ranges_of([(kinds[one].parameter, kinds[one].whole) for one in used])
        arenas = {one: signature.arena(kinds[one].spec) for one in used}
        spec_of, begin_of = np.zeros(len(kinds), np.int16), np.zeros(len(kinds), np.int64)
        for one, place in zip(used, ranges, strict=True):
            spec_of[one], begin_of[one] = arenas[one], place.begin
        graph.external_spec, graph.external_row = spec_of[own], np.empty(count, np.int32)
        for arena in sorted(set(arenas.values())):
            places = np.flatnonzero(graph.external_spec == arena)
            graph.external_row[places] = np.arange(len(places))
            data[arena] = np.empty(
                (len(places), *signature.value_specs[arena].shape), signature.value_specs[arena].dtype
            )
            for one in used:
                members = np.flatnonzero(own[places] == one)
                if len(members):
                    data[arena][members] = _rows(kinds[one], rows[places[members]])
        numbers = begin_of[own] + rows
    graph.external_data = tuple(data)
    return NumberedReads(ranges, numbers)


def _rows(kind: ReadKind, rows: np.ndarray) -> np.ndarray:
    """Rows of a parameter, or all of it as often, as values."""
    numbers = kind.parameter.detach().numpy()
    if kind.whole:
        return np.broadcast_to(numbers.reshape(kind.spec.shape), (len(rows), *kind.spec.shape))
    return numbers.take(rows, axis=0).reshape(len(rows), *kind.spec.shape)
