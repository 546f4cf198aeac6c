"""The reference executor: one node at a time, float64, plain NumPy.

Shares no code with the compiled path: what it computes is what a batched run is checked against.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edbatch_tvm.graph import FIRST_EXTERNAL, ZERO, CellSignature, InstanceGraph

Function = Callable[..., Any]
"""One cell on float64 arrays. Its parameters carry the cell's names: operands, attributes and weights."""


def run_reference(
    graph: InstanceGraph,
    functions: Mapping[str, Function],
    weights: Mapping[str, np.ndarray],
    progress: Callable[[int], object] | None = None,
) -> list[tuple[np.ndarray, ...]]:
    """Run `graph` node by node.

    Parameters
    ----------
    graph : InstanceGraph
        One instance or a minibatch.
    functions : mapping of cell name to function
        Called by keyword with what the function's parameters name. A variadic operand is an array ``[k, *shape]``,
        k = 0 included.
    weights : mapping of str to array
    progress : callable, optional
        Called with 1 after every node.

    Returns
    -------
    list of tuple of float64 arrays
        The outputs of each node.
    """
    signature = graph.signature
    assert signature is not None
    wide = {name: np.asarray(array, np.float64) for name, array in weights.items()}
    names = {cell: tuple(inspect.signature(function).parameters) for cell, function in functions.items()}
    bound = {
        cell: {name: wide[name] for name in names[cell] if name in wide}
        for cell in signature.names
        if cell in functions
    }
    position = [0] * len(signature)
    results: list[tuple[np.ndarray, ...]] = []
    pointer, values = graph.operand_ptr.tolist(), graph.operand_value.tolist()

    def fetch(value: int, shape: tuple[int, ...]) -> np.ndarray:
        if value >= 0:
            node, slot = divmod(value, graph.stride)
            return results[node][slot]
        if value == ZERO:
            return np.zeros(shape)
        row = FIRST_EXTERNAL - value
        return graph.external_data[graph.external_spec[row]][graph.external_row[row]].astype(np.float64)

    for node, type_id in enumerate(graph.node_type.tolist()):
        cell = signature[type_id]
        arguments = _operands(cell, values[pointer[node] : pointer[node + 1]], fetch)
        for attribute in cell.attributes:
            row = graph.attributes[type_id, attribute.name][position[type_id]]
            arguments[attribute.name] = row.astype(np.float64) if row.dtype.kind == "f" else row
        position[type_id] += 1
        outputs = functions[cell.name](**arguments, **bound[cell.name])
        results.append(outputs if isinstance(outputs, tuple) else (outputs,))
        if progress is not None:
            progress(1)
    return results


def _operands(
    cell: CellSignature, values: list[int], fetch: Callable[[int, tuple[int, ...]], np.ndarray]
) -> dict[str, Any]:
    repeat = (len(values) - cell.fixed_arity) // cell.variadic_count if cell.variadic_count else 0
    arguments: dict[str, Any] = {}
    position = 0
    for operand in cell.operands:
        shape = operand.spec.shape
        if operand.variadic:
            rows = [fetch(value, shape) for value in values[position : position + repeat]]
            arguments[operand.name] = np.stack(rows) if rows else np.zeros((0, *shape))
            position += repeat
        else:
            arguments[operand.name] = fetch(values[position], shape)
            position += 1
    return arguments
