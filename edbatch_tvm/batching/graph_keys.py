"""When two graphs are one to a scheduler and a planner: by digests of their structure."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.graph import InstanceGraph


def structure_digest(graph: InstanceGraph) -> bytes:
    """Digest of what schedules and plans depend on: types, operands (the output slot included), names of the types."""
    return graph.digest


def cache_key(graph: InstanceGraph) -> tuple[str, bytes]:
    """What two graphs share only if they have the same structure: of a merged graph, the structures of its parts.

    Instances keep their digests, so that a minibatch is not read once more.
    """
    parts = graph.digest_of_parts
    return ("whole", graph.digest) if parts is None else ("parts", parts)


def same_structure(graph: InstanceGraph, other: InstanceGraph | None) -> bool:
    """Whether a schedule of `other` is one of `graph`, too."""
    if graph is other or other is None:
        return graph is other
    return cache_key(graph) == cache_key(other) or graph.digest == other.digest


def same_rows(graph: InstanceGraph, other: InstanceGraph) -> bool:
    """Whether a memory plan of `other` fits `graph`, too: one structure, one signature, external rows in one order."""
    if graph is other:
        return True
    if graph.signature is not other.signature and graph.signature != other.signature:
        return False
    if not same_structure(graph, other):
        return False
    if not len(graph.external_row) and not len(other.external_row):
        return True
    return (
        np.array_equal(graph.external_spec, other.external_spec)
        and np.array_equal(graph.external_row, other.external_row)
        and [len(rows) for rows in graph.external_data] == [len(rows) for rows in other.external_data]
    )
