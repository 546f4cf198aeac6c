"""Layouts found before, by the structure of graph and schedule."""

from __future__ import annotations

import hashlib

import numpy as np

from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.bounded_cache import BoundedCache
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


def layout_cache(capacity: int = CACHE_NODES) -> BoundedCache[bytes, Layout]:
    """A cache of layouts, bounded by their nodes."""
    return BoundedCache(capacity, lambda layout: len(layout.order))
