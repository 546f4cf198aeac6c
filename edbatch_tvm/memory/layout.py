"""Layouts: the order of the nodes within each batch, and where each batch's results begin in the arenas.

The results of a batch fill one *block* of consecutive rows for each output slot. A layout is free in two things: the
order of the nodes within a batch, which all blocks of the batch share, and the order of the blocks in an arena.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.graph.spec import Signature, ValueSpec


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the results of every batch lie.

    Attributes
    ----------
    order : int32 array of shape [nodes]
        The nodes, batch after batch; within a batch in the order of their rows.
    base : int32 array of shape [batches, stride]
        First row of each block; 0 where a cell has fewer outputs.
    arena_rows : tuple of int
        Rows each arena needs.
    """

    order: np.ndarray
    base: np.ndarray
    arena_rows: tuple[int, ...]


def by_batch(graph: InstanceGraph, schedule: Schedule) -> Layout:
    """Batch after batch, the blocks of a batch one after the other, nodes as in the schedule."""
    slots = signature_of(graph).stride
    blocks = np.arange(len(schedule) * slots)
    base, arena_rows = _stack(graph, schedule, blocks // slots, blocks % slots)
    return Layout(schedule.order, base, arena_rows)


def by_slot(graph: InstanceGraph, schedule: Schedule, order: np.ndarray, batches: np.ndarray) -> Layout:
    """In every arena the blocks of slot 0, then those of slot 1, and so on; each time in the order `batches`."""
    slots = signature_of(graph).stride
    base, arena_rows = _stack(graph, schedule, np.tile(batches, slots), np.repeat(np.arange(slots), len(batches)))
    return Layout(order, base, arena_rows)


def by_type(schedule: Schedule) -> np.ndarray:
    """The batches, those of one type together, else in the order of the schedule."""
    return np.argsort(schedule.batch_type, kind="stable")


def signature_of(graph: InstanceGraph) -> Signature:
    """The signature of a graph that has one."""
    assert graph.signature is not None
    return graph.signature


def row_bytes(spec: ValueSpec) -> int:
    """Bytes of one value."""
    return spec.size * np.dtype(spec.dtype).itemsize


def _stack(
    graph: InstanceGraph, schedule: Schedule, batch: np.ndarray, slot: np.ndarray
) -> tuple[np.ndarray, tuple[int, ...]]:
    """First rows of the blocks (batch[i], slot[i]), stacked in this order in their arenas; rows used in each arena."""
    signature = signature_of(graph)
    arena_of = signature.output_arena[schedule.batch_type[batch], slot]
    size = np.diff(schedule.batch_ptr)[batch]
    base = np.zeros((len(schedule), signature.stride), np.int32)
    arena_rows = []
    for arena in range(len(signature.value_specs)):
        external = len(graph.external_data[arena]) if graph.external_data else 0
        here = arena_of == arena
        end = 1 + external + np.cumsum(size[here])
        base[batch[here], slot[here]] = end - size[here]
        arena_rows.append(int(end[-1]) if len(end) else 1 + external)
    return base, tuple(arena_rows)
