"""The kernel of equal nodes with NumPy arrays; see :class:`edbatch_tvm.graph.equal_nodes.EqualNodesKernel`."""

from __future__ import annotations

import numpy as np

from edbatch_tvm.graph.equal_nodes import Merged
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.graph.node_users import Uses
from edbatch_tvm.native.arguments import as_argument, never_empty
from edbatch_tvm.native.build import load_library


class NativeEqualNodes:
    """The fast way to equal nodes, of graphs that have nodes.

    Raises
    ------
    ImportError
        If TVM is missing.
    """

    def __init__(self) -> None:
        self._merge_equal = load_library("equal")["merge_equal"]

    def merged(self, graph: InstanceGraph) -> Merged:
        """Equal nodes of a checked graph."""
        nodes, edges, types = graph.num_nodes, max(1, len(graph.operand_value)), graph.num_types
        rows = {key: np.ascontiguousarray(one) for key, one in sorted(graph.attributes.items()) if len(one)}
        columns = np.zeros((max(1, len(rows)), 2), np.int64)
        for number, one in enumerate(rows.values()):
            columns[number] = one.ctypes.data, one.nbytes // len(one)
        column_ptr = np.searchsorted([key[0] for key in rows], np.arange(types + 1)).astype(np.int32)
        node, kept, waits = np.empty((3, nodes), np.int32)
        operand_ptr, use_ptr = np.empty((2, nodes + 1), np.int32)
        operand_value, user = np.empty((2, edges), np.int32)
        io = np.zeros(3, np.int64)
        self._merge_equal(
            graph.stride,
            types,
            as_argument(graph.node_type, np.int16),
            as_argument(graph.operand_ptr),
            never_empty(graph.operand_value),
            columns,
            column_ptr,
            np.empty(1 << (2 * nodes - 1).bit_length(), np.int32),
            np.empty(4 * nodes + types + 1, np.int32),
            node,
            kept,
            operand_ptr,
            operand_value,
            use_ptr,
            user,
            waits,
            io,
        )
        left, end, used = io.tolist()
        uses = Uses(use_ptr[: left + 1], user[:used], waits[:left])
        return Merged(node, kept[:left], operand_ptr[: left + 1], operand_value[:end], uses)


def load() -> NativeEqualNodes:
    """The kernel, built if this machine has none yet.

    Raises
    ------
    ImportError
        If TVM is missing.
    """
    return NativeEqualNodes()
