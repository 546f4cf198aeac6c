"""Checks of an instance graph; each failure is one error that names the node."""

from __future__ import annotations

from typing import Any

import numpy as np

from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph.instance import FIRST_EXTERNAL, ZERO, InstanceGraph


def as_index_array(name: str, array: Any) -> np.ndarray:
    """`array` as a one-dimensional array of integers that fit int32.

    Raises
    ------
    GraphError
        If it is not one.
    """
    result = np.asarray(array)
    if result.size == 0:
        result = result.astype(np.int32)
    if result.ndim != 1 or result.dtype.kind not in "iu":
        raise GraphError(f"{name} has shape {result.shape} and dtype {result.dtype}", "a one-dimensional integer array")
    if result.size and (result.max() > np.iinfo(np.int32).max or result.min() < np.iinfo(np.int32).min):
        raise GraphError(f"{name} holds {result.max()}", "numbers that fit int32")
    return result


def validate(graph: InstanceGraph) -> None:
    """Check that `graph` is a DAG in producer-before-user order that fits its signature.

    Raises
    ------
    GraphError
        Naming the first node at fault, what was found there and what was expected.
    """
    _check_pointers(graph)
    _check_producers(graph)
    if graph.signature is not None:
        _check_arity(graph)
        _check_operand_specs(graph)
        _check_attributes(graph)
    _check_outputs(graph)


def _name(graph: InstanceGraph, node: int) -> str:
    return f"node {node} ({graph.type_names[graph.node_type[node]]})"


def _check_pointers(graph: InstanceGraph) -> None:
    count, pointer, edges = graph.num_nodes, graph.operand_ptr, len(graph.operand_value)
    if len(pointer) != count + 1:
        raise GraphError(f"operand_ptr has {len(pointer)} entries for {count} nodes", f"{count + 1}")
    if pointer[0] != 0 or pointer[-1] != edges or (np.diff(pointer) < 0).any():
        raise GraphError("operand_ptr is not a list of offsets", f"0 first, never falling, {edges} last")
    if count and (graph.node_type.min() < 0 or graph.node_type.max() >= graph.num_types):
        node = int(np.flatnonzero((graph.node_type < 0) | (graph.node_type >= graph.num_types))[0])
        raise GraphError(
            f"node {node} has type id {graph.node_type[node]}", f"0 to {graph.num_types - 1} ({graph.type_names})"
        )


def _check_producers(graph: InstanceGraph) -> None:
    if not len(graph.operand_value):
        return
    count, value = graph.num_nodes, graph.operand_value
    user = np.repeat(np.arange(count, dtype=np.int32), np.diff(graph.operand_ptr))
    lowest = FIRST_EXTERNAL - len(graph.external_row) + 1 if graph.signature is not None else 0
    outside = (value < lowest) | (value >= count * graph.stride)
    if outside.any():
        edge = int(np.argmax(outside))
        what = f"value {value[edge]}" if value[edge] < 0 else f"node {value[edge] // graph.stride}"
        raise GraphError(
            f"missing operand: {_name(graph, int(user[edge]))} reads {what}, which does not exist",
            f"one of the {count} nodes" if lowest == 0 else f"a node or one of {len(graph.external_row)} external rows",
        )
    producer = graph.operand_node
    backward = producer >= user
    if backward.any():
        _raise_for_order(graph, producer, user, int(np.argmax(backward)))


def _raise_for_order(graph: InstanceGraph, producer: np.ndarray, user: np.ndarray, edge: int) -> None:
    """Tell a cycle from a mere misordering (Kahn's algorithm; only runs on the way to an error)."""
    keep = producer >= 0
    sources, users = producer[keep], user[keep]
    indegree = np.bincount(users, minlength=graph.num_nodes)
    order = np.argsort(sources, kind="stable")
    ends = np.cumsum(np.bincount(sources, minlength=graph.num_nodes))
    ready = np.flatnonzero(indegree == 0).tolist()
    seen = 0
    while ready:
        node = ready.pop()
        seen += 1
        for position in order[(ends[node - 1] if node else 0) : ends[node]]:
            child = int(users[position])
            indegree[child] -= 1
            if indegree[child] == 0:
                ready.append(child)
    where = f"{_name(graph, int(user[edge]))} reads node {producer[edge]}"
    if seen < graph.num_nodes:
        cyclic = np.flatnonzero(indegree > 0)[:5].tolist()
        raise GraphError(f"cyclic graph: nodes {cyclic} wait for each other; {where}", "a DAG")
    raise GraphError(where, "operands before their users", "number the nodes in topological order")


def _check_arity(graph: InstanceGraph) -> None:
    assert graph.signature is not None
    arity = np.diff(graph.operand_ptr)
    for type_id, cell in enumerate(graph.signature):
        nodes = graph.nodes_of(type_id)
        got = arity[nodes]
        if cell.variadic_count:
            bad = (got < cell.fixed_arity) | ((got - cell.fixed_arity) % cell.variadic_count != 0)
            expected = f"{cell.fixed_arity} + k * {cell.variadic_count}"
        else:
            bad = got != cell.fixed_arity
            expected = str(cell.fixed_arity)
        if bad.any():
            node = int(nodes[np.argmax(bad)])
            raise GraphError(f"{_name(graph, node)} has {arity[node]} operands", f"{expected}: {cell}")


def operand_slots(graph: InstanceGraph) -> np.ndarray:
    """Operand slot (index into the cell's operands) of every entry of ``graph.operand_value``; int16[e]."""
    assert graph.signature is not None
    slots = np.zeros(len(graph.operand_value), np.int16)
    arity = np.diff(graph.operand_ptr)
    for type_id, cell in enumerate(graph.signature):
        nodes = graph.nodes_of(type_id)
        if not len(nodes) or not cell.operands:
            continue
        counts = arity[nodes]
        repeats = counts if not cell.variadic_count else (counts - cell.fixed_arity) // cell.variadic_count
        position = graph.operand_ptr[nodes].copy()
        for slot, operand in enumerate(cell.operands):
            width = repeats if operand.variadic else np.ones(len(nodes), np.int64)
            starts = np.repeat(position, width)
            within = np.arange(len(starts)) - np.repeat(np.cumsum(width) - width, width)
            slots[starts + within] = slot
            position = position + width
    return slots


def _check_operand_specs(graph: InstanceGraph) -> None:
    signature = graph.signature
    assert signature is not None
    if not len(graph.operand_value):
        return
    user = np.repeat(np.arange(graph.num_nodes, dtype=np.int32), np.diff(graph.operand_ptr))
    wanted_table = np.full((len(signature), max(len(c.operands) for c in signature)), -1, np.int32)
    for type_id, cell in enumerate(signature):
        for slot, operand in enumerate(cell.operands):
            wanted_table[type_id, slot] = signature.arena(operand.spec)
    slot = operand_slots(graph)
    wanted = wanted_table[graph.node_type[user], slot]
    value = graph.operand_value
    got = wanted.copy()
    from_node = value >= 0
    got[from_node] = signature.output_arena[graph.node_type[graph.operand_node[from_node]], value[from_node] % graph.stride]
    external = value <= FIRST_EXTERNAL
    got[external] = graph.external_spec[FIRST_EXTERNAL - value[external]]
    bad = got != wanted
    if not bad.any():
        return
    edge = int(np.argmax(bad))
    node = int(user[edge])
    cell = signature[int(graph.node_type[node])]
    operand = cell.operands[slot[edge]]
    producer = int(graph.operand_node[edge])
    if producer < 0:
        raise GraphError(
            f"operand {operand.name!r} of {_name(graph, node)} is an external row of {signature.value_specs[got[edge]]}",
            str(operand.spec),
        )
    given = (
        f"operand {operand.name!r} of {_name(graph, node)} is output {value[edge] % graph.stride} of {_name(graph, producer)}"
    )
    if got[edge] < 0:
        raise GraphError(f"missing operand: {given}", f"an output of {signature[int(graph.node_type[producer])]}")
    raise GraphError(f"{given}, {signature.value_specs[got[edge]]}", str(operand.spec))


def _check_attributes(graph: InstanceGraph) -> None:
    assert graph.signature is not None
    for type_id, cell in enumerate(graph.signature):
        count = int(graph.type_count[type_id])
        for attribute in cell.attributes:
            rows = graph.attributes.get((type_id, attribute.name))
            if rows is None:
                if count:
                    raise GraphError(f"no attribute {attribute.name!r} for {count} nodes of {cell.name!r}", str(cell))
                continue
            if rows.shape != (count, *attribute.spec.shape):
                raise GraphError(
                    f"attribute {attribute.name!r} of {cell.name!r} has shape {rows.shape}",
                    f"({count}, {', '.join(map(str, attribute.spec.shape))})",
                )
            if rows.dtype != np.dtype(attribute.spec.dtype):
                raise GraphError(
                    f"attribute {attribute.name!r} of {cell.name!r} has dtype {rows.dtype}", attribute.spec.dtype
                )
            if attribute.bound is not None and rows.size:
                bad = (rows < 0) | (rows >= attribute.bound)
                if bad.any():
                    index = int(np.argmax(bad.reshape(count, -1).any(axis=1)))
                    node = int(graph.nodes_of(type_id)[index])
                    raise GraphError(
                        f"index out of range: {attribute.name!r} of {_name(graph, node)} is {rows[index]}",
                        f"0 to {attribute.bound - 1}",
                    )


def _check_outputs(graph: InstanceGraph) -> None:
    outputs, count = graph.outputs, graph.num_nodes
    if not len(outputs):
        return
    bad = (outputs < 0) | (outputs >= count * graph.stride)
    if not bad.any() and graph.signature is not None:
        bad = graph.signature.output_arena[graph.node_type[outputs // graph.stride], outputs % graph.stride] < 0
    if bad.any():
        raise GraphError(f"declared output {outputs[np.argmax(bad)]} is no value of the graph", "outputs of its nodes")


__all__ = ["FIRST_EXTERNAL", "ZERO", "as_index_array", "operand_slots", "validate"]
