"""Schedules found before, by the structure of their graphs: of each its batches, and nothing of a graph.

A graph has attributes and external rows, which are the inputs of a minibatch. A model that trains sees new structures
all the time, so what is kept of each has to be little, and of all of them no more than :data:`CACHE_BYTES`.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable

import numpy as np

from edbatch_tvm.batching.policy import Run
from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.bounded_cache import BoundedCache
from edbatch_tvm.graph import InstanceGraph

CACHE_BYTES = 1 << 24
"""The cache forgets the schedules used longest ago when it holds more than this."""

_ENTRY_BYTES = 1024
"""About what an entry takes besides its numbers."""


class _Kept:
    """A run of a policy without its graph.

    Attributes
    ----------
    bytes : int
    """

    __slots__ = ("_arrays", "_facts", "_schedule", "bytes")

    def __init__(self, run: Run) -> None:
        schedule = run.schedule
        self._arrays = _alone(schedule.order), _alone(schedule.batch_ptr), _alone(schedule.batch_type)
        self._facts = run.policy, run.misses, run.states
        self._schedule = weakref.ref(schedule)
        self.bytes = _ENTRY_BYTES + sum(one.nbytes for one in self._arrays)

    def run(self, graph: InstanceGraph) -> Run:
        """The run, for a graph of this structure; the same schedule, as long as somebody holds it."""
        schedule = self._schedule()
        if schedule is None:
            schedule = Schedule.for_graph(graph, *self._arrays)
            schedule.checked = True
            self._schedule = weakref.ref(schedule)
        return Run(schedule, *self._facts)


class ScheduleCache:
    """Runs of policies by a key that says all of the policy and of the graph's structure.

    Parameters
    ----------
    capacity : int
        Bytes.
    """

    def __init__(self, capacity: int = CACHE_BYTES) -> None:
        self._kept: BoundedCache[Hashable, _Kept] = BoundedCache(capacity, lambda one: one.bytes)

    def get(self, key: Hashable, graph: InstanceGraph) -> Run | None:
        """What is kept under `key`, for a graph that has it."""
        found = self._kept.get(key)
        return None if found is None else found.run(graph)

    def put(self, key: Hashable, run: Run) -> None:
        """Keep a run whose schedule is checked."""
        self._kept.put(key, _Kept(run))

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


def _alone(array: np.ndarray) -> np.ndarray:
    """The array, or a copy if it is a part of a larger one."""
    return array if array.base is None or array.base.nbytes <= array.nbytes else array.copy()
