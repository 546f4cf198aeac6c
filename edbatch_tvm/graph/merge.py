"""Minibatch graphs: the disjoint union of instance graphs, without a loop over nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from operator import attrgetter

import numpy as np

from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph import native_merge
from edbatch_tvm.graph.external_rows import merge_external
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.graph.spec import Signature

_CHECKED = attrgetter("checked")
_SIGNATURE = attrgetter("signature")
_MERGE_ROW = attrgetter("merge_row")


def merge(instances: Sequence[InstanceGraph]) -> InstanceGraph:
    """One graph of all `instances`, in order.

    Parameters
    ----------
    instances : sequence of InstanceGraph
        Graphs over one signature (or all without). Each may itself be a minibatch graph.

    Returns
    -------
    InstanceGraph
        Its ``node_ptr`` and ``output_ptr`` tell the instances apart.

    Raises
    ------
    GraphError
        If there are no instances or their signatures differ.

    Examples
    --------
    >>> pair = InstanceGraph.from_arrays([0, 1], [0, 0, 1], [0])
    >>> merge([pair, pair])
    InstanceGraph(node_type=[4], operand_value=[2], types=2, node_ptr=[3])
    """
    if not isinstance(instances, Sequence) and np.ndim(instances) != 1:
        raise GraphError(f"instances in a {type(instances).__name__}", "a list of instance graphs")
    for position, graph in enumerate(instances):
        if not isinstance(graph, InstanceGraph):
            raise GraphError(f"instance {position} is a {type(graph).__name__}", "an InstanceGraph")
    if not len(instances):
        raise GraphError("an empty minibatch: 0 instances", "1 or more")
    first = instances[0]
    if len(instances) == 1:
        return first
    if list(map(_SIGNATURE, instances)).count(first.signature) != len(instances):
        _check_signatures(instances)
    if first.signature is None:
        instances = _common_types(instances)
    fast = native_merge.merger()
    merged = fast.merge(instances) if fast is not None else None
    if merged is None:
        merged = reference_merge(instances)
    merged.checked = all(map(_CHECKED, instances))
    if merged.checked and merged.signature is not None:
        for graph in instances:
            if "addresses" in vars(graph) and graph.addresses is not None and not graph.external_data:
                graph.merge_row = graph.addresses.row
    return merged


def merge_again(instances: Sequence[InstanceGraph], signature: Signature | None = None) -> InstanceGraph | None:
    """The merge of checked graphs over one signature that all have been merged before; None if they are anything else.

    What :func:`merge` gives, for less: of each graph one attribute is looked at. With `signature`, the same graph over
    that: its cells are those of the instances, but return more.
    """
    fast = native_merge.merger()
    if fast is None or len(instances) < 2:
        return None
    try:
        rows = list(map(_MERGE_ROW, instances))
    except AttributeError:  # other objects: for somebody else to name
        return None
    return merge_rows(fast, rows, instances[0], signature)


def merge_rows(
    fast: native_merge.Merger, rows: Sequence[bytes | None], first: InstanceGraph, signature: Signature | None
) -> InstanceGraph | None:
    """The merge of checked graphs by their rows, `first` the first of them; None if one has none, or other cells.

    Their external rows are left to the caller.
    """
    found = [row for row in rows if row]
    if len(found) < len(rows) or list(map(len, found)).count(len(found[0])) != len(rows):
        return None
    merged = fast.merge_rows(found, first, signature)
    if merged is not None:
        merged.checked = True
        if merged.part_digests is not None and merged.stride != first.stride:
            merged.part_digests = merged.part_digests ^ wider_mark(first.stride, merged.stride)
    return merged


@cache
def wider_mark(old: int, new: int) -> np.ndarray:
    """What makes digests of a graph those of the same one with more outputs a node: its values have other numbers."""
    mark = hashlib.blake2b(repr((old, new)).encode(), digest_size=16).digest()
    return np.frombuffer(mark, np.int64)


def reference_merge(instances: Sequence[InstanceGraph]) -> InstanceGraph:
    """The merge of graphs over one signature, or one list of type labels, in NumPy."""
    first = instances[0]

    def offsets(lengths: list[int]) -> np.ndarray:
        ends = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=ends[1:])
        return ends

    node_counts = [len(g.node_type) for g in instances]
    edge_counts = [len(g.operand_value) for g in instances]
    output_counts = [len(g.outputs) for g in instances]
    node_start, edge_start, output_start = offsets(node_counts), offsets(edge_counts), offsets(output_counts)
    if max(node_start[-1] * first.stride, edge_start[-1]) > np.iinfo(np.int32).max:
        raise GraphError(f"a minibatch of {node_start[-1]} nodes", "values that fit int32", "use smaller minibatches")

    value_start = (node_start[:-1] * first.stride).astype(np.int32)
    operand_value = np.concatenate([g.operand_value for g in instances])
    shift = np.repeat(value_start, edge_counts)
    if len(operand_value):
        operand_value += shift * (operand_value >= 0)
    operand_ptr = np.empty(node_start[-1] + 1, np.int32)
    operand_ptr[0] = 0
    np.concatenate([g.operand_ptr[1:] for g in instances], out=operand_ptr[1:])
    operand_ptr[1:] += np.repeat(edge_start[:-1].astype(np.int32), node_counts)
    outputs = np.concatenate([g.outputs for g in instances]) + np.repeat(value_start, output_counts)
    merged = InstanceGraph(
        np.concatenate([g.node_type for g in instances]),
        operand_ptr,
        operand_value,
        first.signature,
        attributes=_merge_attributes(instances),
        outputs=outputs,
        node_ptr=_join_pointers([g.node_ptr for g in instances], node_start),
        output_ptr=_join_pointers([g.output_ptr for g in instances], output_start),
        type_label=first.type_label,
        scalar_output=np.concatenate([g.scalar_output for g in instances]),
    )
    merge_external(instances, merged)
    return merged


def _join_pointers(pointers: list[np.ndarray], starts: np.ndarray) -> np.ndarray:
    if all(len(pointer) == 2 for pointer in pointers):
        return starts.astype(np.int32)
    pieces = [pointer[:-1] + start for pointer, start in zip(pointers, starts[:-1], strict=True)]
    return np.concatenate([*pieces, starts[-1:]]).astype(np.int32)


def _check_signatures(instances: Sequence[InstanceGraph]) -> None:
    first = instances[0].signature
    for index, other in enumerate(instances):
        if other.signature != first:
            raise GraphError(
                f"instance {index} has cells {other.type_names}",
                f"those of instance 0, {instances[0].type_names}",
                "build all instances with one model's builder",
            )


def _common_types(instances: Sequence[InstanceGraph]) -> Sequence[InstanceGraph]:
    """Bare graphs with one list of type labels."""
    every = [g.type_label if g.type_label is not None else np.arange(g.num_types) for g in instances]
    if all(np.array_equal(label, every[0]) for label in every):
        return instances
    joint = np.unique(np.concatenate(every))
    return [_with_types(g, np.searchsorted(joint, label), joint) for g, label in zip(instances, every, strict=True)]


def _with_types(graph: InstanceGraph, type_of: np.ndarray, labels: np.ndarray) -> InstanceGraph:
    """A bare graph over another list of type labels."""
    changed = InstanceGraph(
        type_of[graph.node_type].astype(np.int16),
        graph.operand_ptr,
        graph.operand_value,
        outputs=graph.outputs,
        node_ptr=graph.node_ptr,
        output_ptr=graph.output_ptr,
        type_label=labels,
        scalar_output=graph.scalar_output,
    )
    changed.checked = graph.checked
    return changed


def _merge_attributes(instances: Sequence[InstanceGraph]) -> dict[tuple[int, str], np.ndarray]:
    keys = dict.fromkeys(key for g in instances for key, rows in g.attributes.items() if len(rows))
    return {key: np.concatenate([g.attributes[key] for g in instances if key in g.attributes]) for key in keys}
