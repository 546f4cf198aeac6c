"""Checks of an instance graph; each failure is one error that names the node."""

from __future__ import annotations

from typing import Any

import numpy as np

from edbatch_tvm.argument_checks import require_type, require_unmasked
from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph.instance import FIRST_EXTERNAL, ZERO, InstanceGraph

_INTEGERS = (
    "node_type",
    "operand_ptr",
    "operand_value",
    "outputs",
    "node_ptr",
    "output_ptr",
    "external_spec",
    "external_row",
)


def as_index_array(name: str, array: Any, dtype: type[np.signedinteger[Any]] = np.int32) -> np.ndarray:
    """`array` as a one-dimensional array of integers of `dtype`; always a copy.

    Raises
    ------
    GraphError
        If it is not one.
    """
    require_unmasked(name, array, GraphError)
    try:
        given = np.asarray(array)
    except ValueError:
        raise GraphError(f"{name} is nested", "a one-dimensional integer array") from None
    if given.size == 0:
        given = given.astype(dtype)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise GraphError(f"{name} has shape {given.shape} and dtype {given.dtype}", "a one-dimensional integer array")
    result = given.astype(dtype)
    wrong = given != result
    if wrong.any():
        raise GraphError(f"{name} holds {given[np.argmax(wrong)]}", f"numbers that fit {np.dtype(dtype)}")
    return result


def require_checked(graph: InstanceGraph) -> None:
    """Check `graph` unless that was done before.

    Raises
    ------
    GraphError
        If it is no graph, or no well-formed one.
    """
    require_type(graph, InstanceGraph, "an InstanceGraph", GraphError)
    if not graph.checked:
        validate(graph)


def validate(graph: InstanceGraph) -> None:
    """Check that `graph` is a DAG in producer-before-user order that fits its signature.

    Raises
    ------
    GraphError
        Naming the first node at fault, what was found there and what was expected.
    """
    require_type(graph, InstanceGraph, "an InstanceGraph", GraphError)
    _check_arrays(graph)
    _check_pointers(graph)
    _check_external(graph)
    _check_producers(graph)
    if graph.signature is not None:
        _check_arity(graph)
        _check_operand_specs(graph)
    check_attributes(graph)
    _check_outputs(graph)
    graph.checked = True


def _name(graph: InstanceGraph, node: int) -> str:
    name = f"node {node} ({graph.type_names[graph.node_type[node]]})"
    if graph.num_instances <= 1:
        return name
    return f"{name} of instance {np.searchsorted(graph.node_ptr, node, side='right') - 1}"


def _check_arrays(graph: InstanceGraph) -> None:
    for name in _INTEGERS:
        array = getattr(graph, name)
        if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind != "i":
            given = f"{array.ndim}-D of {array.dtype}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
            raise GraphError(f"{name} is {given}", "a one-dimensional array of signed integers")
        require_unmasked(name, array, GraphError)
    for name, array in (*graph.attributes.items(), *enumerate(graph.external_data)):
        if type(array) is not np.ndarray:
            what = f"external_data[{name}]" if isinstance(name, int) else f"attribute {name[1]!r} of type id {name[0]}"
            if not isinstance(array, np.ndarray):
                raise GraphError(f"{what} is a {type(array).__name__}", "an array")
            require_unmasked(what, array, GraphError)


def _check_pointers(graph: InstanceGraph) -> None:
    count = graph.num_nodes
    if len(graph.operand_ptr) != count + 1:
        raise GraphError(f"operand_ptr has {len(graph.operand_ptr)} entries for {count} nodes", f"{count + 1}")
    if len(graph.node_ptr) != len(graph.output_ptr):
        raise GraphError(
            f"node_ptr and output_ptr have {len(graph.node_ptr)} and {len(graph.output_ptr)} entries", "equally many"
        )
    for name, pointer, last in (
        ("operand_ptr", graph.operand_ptr, len(graph.operand_value)),
        ("node_ptr", graph.node_ptr, count),
        ("output_ptr", graph.output_ptr, len(graph.outputs)),
    ):
        if not len(pointer) or pointer[0] != 0 or pointer[-1] != last or (pointer[1:] < pointer[:-1]).any():
            raise GraphError(f"{name} is not a list of offsets", f"0 first, never falling, {last} last")
    if count and (graph.node_type.min() < 0 or graph.node_type.max() >= graph.num_types):
        node = int(np.flatnonzero((graph.node_type < 0) | (graph.node_type >= graph.num_types))[0])
        raise GraphError(
            f"node {node} has type id {graph.node_type[node]}", f"0 to {graph.num_types - 1} ({graph.type_names})"
        )


def _check_external(graph: InstanceGraph) -> None:
    spec, row, data = graph.external_spec, graph.external_row, graph.external_data
    if len(spec) != len(row):
        raise GraphError(f"external_spec has {len(spec)} entries, external_row {len(row)}", "equally many")
    if not len(row) and not data:
        return
    if graph.signature is None:
        raise GraphError("external rows in a graph without cells", "none")
    specs = graph.signature.value_specs
    shapes = [(rows.shape[1:], rows.dtype) for rows in data]
    if shapes != [(s.shape, np.dtype(s.dtype)) for s in specs]:
        raise GraphError(
            f"external_data of {', '.join(f'{dtype}{list(shape)}' for shape, dtype in shapes) or 'nothing'}",
            f"rows of {', '.join(map(str, specs))}",
        )
    limit = np.array([len(rows) for rows in data])
    bad = (spec < 0) | (spec >= len(specs))
    bad = bad | (row < 0) | (row >= limit[np.where(bad, 0, spec)])
    if bad.any():
        index = int(np.argmax(bad))
        raise GraphError(
            f"external row {index} is row {row[index]} of arena {spec[index]}", f"a row of {limit.tolist()} by arena"
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
    fixed, variadic = (ends[graph.node_type, -1] for ends in graph.signature.slot_end)
    rest = arity - fixed
    bad = np.where(variadic > 0, (rest < 0) | (rest % np.maximum(variadic, 1) != 0), rest != 0)
    if bad.any():
        node = int(np.argmax(bad))
        expected = f"{fixed[node]} + k * {variadic[node]}" if variadic[node] else str(fixed[node])
        cell = graph.signature[int(graph.node_type[node])]
        raise GraphError(f"{_name(graph, node)} has {arity[node]} operands", f"{expected}: {cell}")


def operand_slots(graph: InstanceGraph) -> np.ndarray:
    """Operand slot (index into the cell's operands) of every entry of ``graph.operand_value``; int16[e]."""
    signature = graph.signature
    assert signature is not None
    arity = np.diff(graph.operand_ptr)
    position = np.arange(len(graph.operand_value), dtype=np.int32) - np.repeat(graph.operand_ptr[:-1], arity)
    fixed, variadic = (ends[graph.node_type] for ends in signature.slot_end)
    if not variadic.any():
        return position.astype(np.int16)
    # An entry belongs to slot s if the values of s slots end at or before its position.
    k = (arity - fixed[:, -1]) // np.maximum(variadic[:, -1], 1)
    slots = np.zeros(len(position), np.int16)
    for slot in range(fixed.shape[1] - 1):
        slots += position >= np.repeat(fixed[:, slot] + k * variadic[:, slot], arity)
    return slots


def _check_operand_specs(graph: InstanceGraph) -> None:
    signature = graph.signature
    assert signature is not None
    if not len(graph.operand_value):
        return
    user = np.repeat(np.arange(graph.num_nodes, dtype=np.int32), np.diff(graph.operand_ptr))
    slot = operand_slots(graph)
    wanted = signature.operand_arena[graph.node_type[user], slot]
    value = graph.operand_value
    got = wanted.copy()
    from_node = value >= 0
    producer = graph.operand_node[from_node]
    got[from_node] = signature.output_arena[graph.node_type[producer], value[from_node] % graph.stride]
    external = value <= FIRST_EXTERNAL
    got[external] = graph.external_spec[FIRST_EXTERNAL - value[external]]
    bad = got != wanted
    if bad.any():
        edge = int(np.argmax(bad))
        _raise_for_spec(graph, edge, int(user[edge]), int(slot[edge]), int(got[edge]))


def _raise_for_spec(graph: InstanceGraph, edge: int, node: int, slot: int, got: int) -> None:
    signature = graph.signature
    assert signature is not None
    operand = signature[int(graph.node_type[node])].operands[slot]
    where = f"operand {operand.name!r} of {_name(graph, node)}"
    producer = int(graph.operand_node[edge])
    if producer < 0:
        raise GraphError(f"{where} is an external row of {signature.value_specs[got]}", str(operand.spec))
    given = f"{where} is output {graph.operand_value[edge] % graph.stride} of {_name(graph, producer)}"
    if got < 0:
        raise GraphError(f"missing operand: {given}", f"an output of {signature[int(graph.node_type[producer])]}")
    raise GraphError(f"{given}, {signature.value_specs[got]}", str(operand.spec))


def check_attributes(graph: InstanceGraph) -> None:
    """Check that every node has the attributes of its cell, within their bounds.

    Raises
    ------
    GraphError
        Naming the first node at fault.
    """
    cells = graph.signature or ()
    known = {(type_id, attribute.name) for type_id, cell in enumerate(cells) for attribute in cell.attributes}
    for type_id, name in graph.attributes.keys() - known:
        where = f"cell {cells[type_id].name!r}" if type_id in range(len(cells)) else f"type id {type_id}"
        raise GraphError(f"unknown attribute {name!r} of {where}", "an attribute of the graph's cells")
    for type_id, cell in enumerate(cells):
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
                    str((count, *attribute.spec.shape)),
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


__all__ = [
    "FIRST_EXTERNAL",
    "ZERO",
    "as_index_array",
    "check_attributes",
    "operand_slots",
    "require_checked",
    "validate",
]
