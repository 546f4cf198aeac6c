"""Instances from the arrays of a minibatch, without a loop over nodes."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np

from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph.cell_recorders import CellRecorders, attribute_array
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.graph.native_builder import native_builder
from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.graph.validate import as_index_array, validate


def minibatch_from_arrays(
    signature: Signature,
    node_type: Any,
    operand_ptr: Any,
    operand_value: Any,
    node_ptr: Any,
    outputs: Any,
    output_ptr: Any,
    attributes: Mapping[tuple[str, str], Any],
    scalar_output: bool,
    merged: bool,
) -> Any:
    """The instances of a minibatch, with `merged` as one graph; see :meth:`edbatch_tvm.graph.Builder.instances`."""
    types, ptr = _index_array("node_type", node_type, np.int16), _index_array("operand_ptr", operand_ptr)
    values, declared_values = _index_array("operand_value", operand_value), _index_array("outputs", outputs)
    instance_ptr, declared_ptr = _index_array("node_ptr", node_ptr), _index_array("output_ptr", output_ptr)
    rows = _attribute_arrays(signature, attributes)
    native = native_builder()
    if native is not None and (not scalar_output or (np.diff(declared_ptr) == 1).all()):
        arrays = types, ptr, values, declared_values, instance_ptr, declared_ptr
        found = native.instances(signature, arrays, rows, scalar_output, merged)
        if found is not None:
            return found
    graph = InstanceGraph(
        types,
        ptr,
        values,
        signature,
        attributes=rows,
        outputs=declared_values,
        node_ptr=instance_ptr,
        output_ptr=declared_ptr,
        scalar_output=scalar_output,
    )
    declared = np.diff(graph.output_ptr)
    validate(graph)
    if scalar_output and (declared != 1).any():
        instance = int(np.argmax(declared != 1))
        raise GraphError(f"{declared[instance]} outputs of instance {instance}", "1, which is its result")
    _require_apart(graph)
    if not merged:
        return _split(graph)
    copied = deepcopy(graph)  # nobody else can change its arrays
    copied.freeze()
    return copied


def _index_array(name: str, array: Any, dtype: type[np.signedinteger[Any]] = np.int32) -> np.ndarray:
    """An array of integers; not copied where it is one already: instances have copies of their parts."""
    if type(array) is np.ndarray and array.dtype == dtype and array.ndim == 1:
        return array
    return as_index_array(name, array, dtype)


def _attribute_arrays(
    signature: Signature, attributes: Mapping[tuple[str, str], Any]
) -> dict[tuple[int, str], np.ndarray]:
    """Attributes as arrays of their dtypes, by type id and name."""
    found = {}
    for key, rows in attributes.items():
        if not (isinstance(key, tuple) and len(key) == 2):
            raise GraphError(f"attributes of {key!r:.60}", "(cell, attribute) as keys")
        cell = signature[key[0]] if isinstance(key[0], str) else CellRecorders(signature).find(key[0]).cell
        if all(attribute.name != key[1] for attribute in cell.attributes):
            raise GraphError(f"unknown attribute {key[1]!r} of cell {key[0]!r}", f"an attribute of {cell}")
        array = rows if isinstance(rows, np.ndarray) else list(rows)
        if len(array):
            found[signature.type_id(key[0]), key[1]] = attribute_array(cell, key[1], array)
    return found


def _split(graph: InstanceGraph) -> list[InstanceGraph]:
    """The instances of a minibatch that is well formed."""
    signature, stride = graph.signature, graph.stride
    assert signature is not None
    instance_of = np.repeat(np.arange(graph.num_instances), np.diff(graph.node_ptr))
    rows: dict[tuple[int, str], np.ndarray] = {}
    row_ptr: dict[int, np.ndarray] = {}
    for key, array in graph.attributes.items():
        rows[key] = array
        counts = np.bincount(instance_of[graph.node_type == key[0]], minlength=graph.num_instances)
        row_ptr[key[0]] = np.concatenate([[0], np.cumsum(counts)])
    instances = []
    for i, (first, last) in enumerate(zip(graph.node_ptr[:-1].tolist(), graph.node_ptr[1:].tolist(), strict=True)):
        begin, end = graph.operand_ptr[first], graph.operand_ptr[last]
        value = graph.operand_value[begin:end]
        attributes = {
            key: array[row_ptr[key[0]][i] : row_ptr[key[0]][i + 1]].copy()
            for key, array in rows.items()
            if row_ptr[key[0]][i] < row_ptr[key[0]][i + 1]
        }
        instance = InstanceGraph(
            graph.node_type[first:last].copy(),
            graph.operand_ptr[first : last + 1] - begin,
            np.where(value >= 0, value - np.int32(first * stride), value),
            signature,
            attributes=attributes,
            outputs=graph.outputs[graph.output_ptr[i] : graph.output_ptr[i + 1]] - np.int32(first * stride),
            scalar_output=graph.scalar_output[i],
        )
        instance.checked = True
        instance.freeze()
        instances.append(instance)
    return instances


def _require_apart(graph: InstanceGraph) -> None:
    """Refuse a minibatch in which an instance reads or declares values of another."""
    begin, counts = graph.node_ptr[:-1], np.diff(graph.node_ptr)
    first = np.repeat(begin, counts)  # of the instance of each node
    user = np.repeat(np.arange(graph.num_nodes), np.diff(graph.operand_ptr))
    producer = graph.operand_node
    wrong = (producer >= 0) & (producer < first[user])
    if wrong.any():
        edge = int(np.argmax(wrong))
        node, own = int(user[edge]), int(np.searchsorted(graph.node_ptr, user[edge], side="right")) - 1
        raise GraphError(
            f"node {node} ({graph.type_names[graph.node_type[node]]}) of instance {own} reads node {producer[edge]},"
            f" which is before that instance",
            "nodes of its own instance",
        )
    owner = np.repeat(np.arange(graph.num_instances), np.diff(graph.output_ptr))
    declared = graph.outputs // graph.stride
    wrong = (declared < begin[owner]) | (declared >= begin[owner] + counts[owner])
    if wrong.any():
        index = int(np.argmax(wrong))
        raise GraphError(
            f"an output of instance {owner[index]} is value {graph.outputs[index]}, of node {declared[index]}",
            "a node of that instance",
        )
