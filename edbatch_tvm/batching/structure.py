"""When two graphs are one to a scheduler and a planner: by digests of their structure."""

from __future__ import annotations

import hashlib
import weakref

import numpy as np

from edbatch_tvm.graph import InstanceGraph

_DIGESTS: weakref.WeakKeyDictionary[InstanceGraph, bytes] = weakref.WeakKeyDictionary()


def structure_digest(graph: InstanceGraph) -> bytes:
    """Digest of what schedules and plans depend on: types, operands (the output slot included), names of the types."""
    digest = _DIGESTS.get(graph)
    if digest is None:
        hasher = hashlib.blake2b(repr((graph.num_nodes, graph.type_names)).encode(), digest_size=16)
        for array in (graph.node_type, graph.operand_ptr, graph.operand_value):
            hasher.update(np.ascontiguousarray(array).data)
        digest = _DIGESTS[graph] = hasher.digest()
    return digest


def same_structure(graph: InstanceGraph, other: InstanceGraph | None) -> bool:
    """Whether a schedule of `other` is one of `graph`, too."""
    return graph is other or (other is not None and structure_digest(graph) == structure_digest(other))


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
