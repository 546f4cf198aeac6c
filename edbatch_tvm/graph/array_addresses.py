"""Where the arrays of a graph lie, as one row of integers: what the native merge reads instead of Python objects."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from edbatch_tvm.graph.instance import InstanceGraph

NODES, EDGES, OUTPUTS, INSTANCES, USES = range(5)
"""First columns: lengths."""

SIGNATURE, DIGEST = range(5, 7)
"""Then the identity of the signature and the digest (two columns)."""

NO_DIGEST = bytes(16)
"""In the place of the digest of a minibatch that was built as one: nobody has asked for it yet."""

(
    NODE_TYPE,
    TYPE_COUNT,
    OPERAND_PTR,
    OPERAND_VALUE,
    USE_PTR,
    USER,
    WAITS,
    OUTPUT,
    NODE_PTR,
    OUTPUT_PTR,
    SCALAR,
    ATTRIBUTES,
) = range(8, 20)
"""Then addresses; from ``ATTRIBUTES`` on, address and number of rows of each attribute of the signature."""


_APART = 16
_BLOCK_BYTES = 1 << 16


class Addresses(NamedTuple):
    """The row of a graph.

    Attributes
    ----------
    row : bytes
        Columns as int64.
    arrays : tuple of array
        What the addresses point to, kept alive with them.
    """

    row: bytes
    arrays: tuple[np.ndarray, ...]


def find_addresses(graph: InstanceGraph) -> Addresses | None:
    """The row of `graph`; None if it is outside the regular form (other dtypes, strided arrays).

    It says nothing of external rows.
    """
    nodes, edges, outputs = len(graph.node_type), len(graph.operand_value), len(graph.outputs)
    if not nodes or graph.node_type.min() < 0 or graph.node_type.max() >= graph.num_types:
        return None
    pointer = graph.operand_ptr
    if len(pointer) != nodes + 1 or pointer[0] or pointer[-1] != edges or (np.diff(pointer) < 0).any():
        return None
    if edges and graph.operand_value.max() >= nodes * graph.stride:
        return None
    uses = graph.uses
    regular: list[tuple[np.ndarray, np.dtype, tuple[int, ...]]] = [
        (graph.node_type, np.dtype(np.int16), (nodes,)),
        (graph.type_count, np.dtype(np.int64), (graph.num_types,)),
        (graph.operand_ptr, np.dtype(np.int32), (nodes + 1,)),
        (graph.operand_value, np.dtype(np.int32), (edges,)),
        (uses.ptr, np.dtype(np.int32), (nodes + 1,)),
        (uses.user, np.dtype(np.int32), uses.user.shape),
        (uses.waits, np.dtype(np.int32), (nodes,)),
        (graph.outputs, np.dtype(np.int32), (outputs,)),
        (graph.node_ptr, np.dtype(np.int32), (graph.num_instances + 1,)),
        (graph.output_ptr, np.dtype(np.int32), (graph.num_instances + 1,)),
        (graph.scalar_output, np.dtype(np.bool_), (graph.num_instances,)),
    ]
    columns = graph.signature.attribute_columns if graph.signature is not None else ()
    attributes = [graph.attributes.get(key) for key, _, _ in columns]
    for rows, (_, dtype, shape) in zip(attributes, columns, strict=True):
        if rows is not None:
            regular.append((rows, dtype, (len(rows), *shape)))
    if graph.attributes.keys() - {key for key, _, _ in columns}:
        return None
    if not all(_is_regular(*one) for one in regular):
        return None
    arrays, addresses = _together([array for array, _, _ in regular])
    row = [nodes, edges, outputs, graph.num_instances, len(uses.user), id(graph.signature)]
    row += [*np.frombuffer(graph.digest, np.int64).tolist(), *addresses[: ATTRIBUTES - NODE_TYPE]]
    of_attributes = iter(addresses[ATTRIBUTES - NODE_TYPE :])
    for rows in attributes:
        row += [0, 0] if rows is None else [next(of_attributes), len(rows)]
    return Addresses(np.array(row, np.int64).tobytes(), arrays)


def _together(arrays: list[np.ndarray]) -> tuple[tuple[np.ndarray, ...], list[int]]:
    """Small arrays one behind the other in one block, to be read as one stream; and the address of each array."""
    ends = list(accumulate(-(-array.nbytes // _APART) * _APART for array in arrays))
    if ends[-1] > _BLOCK_BYTES:
        return tuple(arrays), [array.ctypes.data for array in arrays]
    block = np.empty(ends[-1], np.uint8)
    begins = [0, *ends[:-1]]
    for begin, array in zip(begins, arrays, strict=True):
        block[begin : begin + array.nbytes] = array.reshape(-1).view(np.uint8)
    start = block.ctypes.data
    return (block,), [start + begin for begin in begins]


def _is_regular(array: np.ndarray, dtype: np.dtype, shape: tuple[int, ...]) -> bool:
    flags = array.flags
    return array.dtype == dtype and array.shape == shape and bool(flags.c_contiguous and flags.aligned)
