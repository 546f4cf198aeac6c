"""Layouts found before, by the structure of graph and schedule."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np

from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.fork_lock import fork_lock
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.memory.layout import Layout, signature_of

CACHE_NODES = 1_000_000
"""The cache forgets the layouts used longest ago when they have more nodes than this."""


def structure_key(graph: InstanceGraph, schedule: Schedule) -> bytes:
    """Digest of what a layout depends on."""
    external = [len(rows) for rows in graph.external_data]
    hasher = hashlib.blake2b(f"{signature_of(graph)}{external}".encode(), digest_size=16)
    arrays = (graph.node_type, graph.operand_ptr, graph.operand_value)
    for array in (*arrays, schedule.order, schedule.batch_ptr, schedule.batch_type):
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.digest()


class LayoutCache:
    """Least recently used layouts, bounded by their nodes."""

    def __init__(self, capacity: int = CACHE_NODES) -> None:
        self._capacity = capacity
        self._layouts: OrderedDict[bytes, Layout] = OrderedDict()
        self._nodes = 0
        self._lock = fork_lock()

    def get(self, key: bytes) -> Layout | None:
        """The layout kept under `key`."""
        with self._lock:
            if key in self._layouts:
                self._layouts.move_to_end(key)
            return self._layouts.get(key)

    def put(self, key: bytes, layout: Layout) -> None:
        """Keep a layout, and forget others if there are too many."""
        with self._lock:
            if key not in self._layouts:
                self._layouts[key] = layout
                self._nodes += len(layout.order)
            while self._nodes > self._capacity and len(self._layouts) > 1:
                _, oldest = self._layouts.popitem(last=False)
                self._nodes -= len(oldest.order)
