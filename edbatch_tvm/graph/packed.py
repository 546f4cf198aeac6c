"""Packed graphs: the arrays of an instance or a minibatch in one block of bytes, as the native builder makes it.

The first merge reads the block through the addresses that are made with it, so that nobody pays for a dozen array
objects an instance. They are made when one is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edbatch_tvm.graph.array_addresses import (
    ATTRIBUTES,
    DIGEST,
    EDGES,
    INSTANCES,
    NO_DIGEST,
    NODE_PTR,
    NODE_TYPE,
    NODES,
    OPERAND_PTR,
    OPERAND_VALUE,
    OUTPUT,
    OUTPUT_PTR,
    OUTPUTS,
    SCALAR,
    TYPE_COUNT,
    USE_PTR,
    USER,
    USES,
    WAITS,
    Addresses,
)
from edbatch_tvm.graph.node_users import Uses

if TYPE_CHECKING:
    from edbatch_tvm.graph.spec import Signature

PACKED = frozenset(
    [
        *("node_type", "operand_ptr", "operand_value", "attributes", "outputs", "node_ptr", "output_ptr"),
        *("scalar_output", "external_spec", "external_row", "external_data", "type_label", "part_digests"),
    ]
)
"""Attributes of a graph that a packed one has not got until one of them is asked for."""


def unpacked(block: bytes, merge_row: bytes, signature: Signature) -> dict[str, Any]:
    """The attributes of a packed graph; arrays are read-only views of `block`.

    Parameters
    ----------
    block : bytes
        The arrays, the first of them at its beginning.
    merge_row : bytes
        Their lengths and addresses; see :mod:`edbatch_tvm.graph.array_addresses`.
    signature : Signature
    """
    row = np.frombuffer(merge_row, np.int64).tolist()
    begin = row[NODE_TYPE]

    def array(column: int, count: int, dtype: Any = np.int32) -> np.ndarray:
        return np.frombuffer(block, dtype, count, row[column] - begin)

    nodes = row[NODES]
    attributes = {}
    for number, (key, dtype, shape) in enumerate(signature.attribute_columns):
        column = ATTRIBUTES + 2 * number
        if rows := row[column + 1]:
            elements = int(np.prod(shape, dtype=np.int64))
            attributes[key] = array(column, rows * elements, dtype).reshape(rows, *shape)
    digest = merge_row[8 * DIGEST : 8 * DIGEST + 16]
    return ({} if digest == NO_DIGEST else {"digest": digest}) | {
        "node_type": array(NODE_TYPE, nodes, np.int16),
        "operand_ptr": array(OPERAND_PTR, nodes + 1),
        "operand_value": array(OPERAND_VALUE, row[EDGES]),
        "attributes": attributes,
        "outputs": array(OUTPUT, row[OUTPUTS]),
        "node_ptr": array(NODE_PTR, row[INSTANCES] + 1),
        "output_ptr": array(OUTPUT_PTR, row[INSTANCES] + 1),
        "scalar_output": array(SCALAR, row[INSTANCES], np.bool_),
        "external_spec": np.empty(0, np.int16),
        "external_row": np.empty(0, np.int32),
        "external_data": (),
        "type_label": None,
        "part_digests": None,
        "uses": Uses(array(USE_PTR, nodes + 1), array(USER, row[USES]), array(WAITS, nodes)),
        "type_count": array(TYPE_COUNT, len(signature), np.int64),
        "addresses": Addresses(merge_row, (np.frombuffer(block, np.uint8),)),
    }
