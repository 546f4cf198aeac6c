"""Operands that are arrays: rows of external data, numbered, collected by shape and dtype, and merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edbatch_tvm.argument_checks import require_unmasked
from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph.instance import FIRST_EXTERNAL, InstanceGraph
from edbatch_tvm.graph.spec import Signature, ValueSpec, can_widen

OUTPUT = "declared output"
"""How errors name one."""


def take_external(
    signature: Signature,
    types: Sequence[int],
    operand_ptr: np.ndarray,
    operands: Sequence[Any],
    is_own: Callable[[str, Any], bool],
) -> tuple[np.ndarray, dict[str, Any]]:
    """Operand values with the arrays among them numbered as external rows, and the tables of these rows.

    Parameters
    ----------
    signature : Signature
    types : sequence of int
        The type id of each node.
    operand_ptr : int array of shape [nodes + 1]
        Where the operands of each node begin.
    operands : sequence
        Values and rows.
    is_own : callable
        ``is_own(what, operand)`` says whether an operand is a value of the instance; it raises
        :class:`~edbatch_tvm.errors.GraphError` for another integer, `what` it names the operand by.

    Raises
    ------
    GraphError
        If an operand is neither.
    """
    specs = signature.value_specs
    arena_of = {(spec.shape, np.dtype(spec.dtype)): arena for arena, spec in enumerate(specs)}
    rows: list[list[np.ndarray]] = [[] for _ in specs]
    values: list[int] = []
    arenas: list[int] = []
    positions: list[int] = []
    nodes = np.repeat(np.arange(len(types)), np.diff(operand_ptr)).tolist()
    for index, (node, value) in enumerate(zip(nodes, operands, strict=True)):
        what = f"an operand of node {node} ({signature.names[types[node]]})"
        if is_own(what, value):
            values.append(int(value))
            continue
        array = _as_row(value)
        if array is None:
            raise no_value(what, value)
        if isinstance(value, float):
            array = array.astype(_operand_dtype(signature, types[node], operand_ptr, node, index))
        arena = arena_of.get((array.shape, array.dtype))
        if arena is None:
            arena = next((a for a, s in enumerate(specs) if _widens_to(array, s)), None)
        if arena is None:
            raise GraphError(
                f"{what} is an external row of shape {array.shape} and dtype {array.dtype}",
                f"one of {', '.join(map(str, specs))}",
            )
        values.append(FIRST_EXTERNAL - len(arenas))
        arenas.append(arena)
        positions.append(len(rows[arena]))
        rows[arena].append(array.astype(specs[arena].dtype, copy=False))
    return np.array(values, np.int64), {
        "external_spec": np.array(arenas, np.int16),
        "external_row": np.array(positions, np.int32),
        "external_data": tuple(
            np.stack(group) if group else np.empty((0, *spec.shape), spec.dtype)
            for group, spec in zip(rows, specs, strict=True)
        ),
    }


def merge_external(instances: Sequence[InstanceGraph], merged: InstanceGraph) -> None:
    """Give a merged graph the external rows of its instances; its operands have the numbers of the instances for them.

    The operands are changed in place.
    """
    counts = [len(graph.external_row) for graph in instances]
    if not any(counts):
        return
    signature = merged.signature
    assert signature is not None
    sizes = np.array([graph.external_sizes for graph in instances])
    merged.external_data = tuple(
        np.concatenate([graph.external_data[arena] for graph in instances if graph.external_data])
        if sizes[:, arena].any()
        else np.empty((0, *spec.shape), spec.dtype)
        for arena, spec in enumerate(signature.value_specs)
    )
    merged.external_spec = np.concatenate([graph.external_spec for graph in instances])
    owner = np.repeat(np.arange(len(instances)), counts)
    begin = (np.cumsum(sizes, axis=0) - sizes).astype(np.int32)
    rows = np.concatenate([graph.external_row for graph in instances])
    merged.external_row = rows + begin[owner, merged.external_spec]
    value = merged.operand_value
    shift = np.repeat(np.cumsum(counts) - counts, [len(graph.operand_value) for graph in instances])
    np.subtract(value, shift.astype(np.int32), out=value, where=value <= FIRST_EXTERNAL)


def _operand_dtype(signature: Signature, type_id: int, operand_ptr: np.ndarray, node: int, index: int) -> str:
    """The dtype that an operand of a node is of, rows of variadic operands counted one by one."""
    cell = signature[type_id]
    begin, end = operand_ptr[node : node + 2].tolist()
    position = index - begin
    rows = (end - begin - cell.fixed_arity) // max(cell.variadic_count, 1)
    for operand in cell.operands:
        position -= rows if operand.variadic else 1
        if position < 0:
            return operand.spec.dtype
    raise AssertionError(position)


def is_integer(item: Any) -> bool:
    """Whether an operand is a number as values are: neither a boolean nor a row."""
    return isinstance(item, int | np.integer) and not isinstance(item, bool)


def no_value(what: str, item: Any) -> GraphError:
    """The error for an operand or declared output, named `what`, that is no value."""
    given, hint = f"is a {type(item).__name__}", ""
    if isinstance(item, int | np.integer):
        given = f"is {item}"
        if what != OUTPUT and abs(int(item)) < 2**31:
            hint = f"a scalar is written as a float: {float(item)}"
    if isinstance(item, tuple):
        hint = "a cell of several outputs returns a tuple"
    return GraphError(f"{what} {given}", "a value returned by call()", hint)


def _widens_to(array: np.ndarray, spec: ValueSpec) -> bool:
    return array.shape == spec.shape and can_widen(array.dtype, np.dtype(spec.dtype))


def _as_row(item: Any) -> np.ndarray | None:
    """`item` as an external row; None if it is no array."""
    if isinstance(item, float):
        return np.array(item)
    require_unmasked("an operand", item, GraphError)
    try:
        if hasattr(item, "__array__"):
            array = np.asarray(item)
            return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
        if hasattr(item, "__dlpack__"):
            return np.from_dlpack(item)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise GraphError(
            f"a {type(item).__name__} that NumPy cannot read ({error})", "an array in host memory"
        ) from None
    return None
