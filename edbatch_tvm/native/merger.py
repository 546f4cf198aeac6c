"""The merging kernel with NumPy arrays; see :class:`edbatch_tvm.graph.backend.Merger`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from edbatch_tvm.graph.addresses import (
    ATTRIBUTES,
    DIGEST,
    EDGES,
    INSTANCES,
    NODES,
    OUTPUTS,
    SIGNATURE,
    USES,
)
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.graph.uses import Uses
from edbatch_tvm.native.build import load_library

_MOST = np.iinfo(np.int32).max


class NativeMerger:
    """The fast merge.

    Raises
    ------
    ImportError
        If TVM is missing.
    """

    def __init__(self) -> None:
        self._merge = load_library("merge")["merge"]

    def merge(self, instances: Sequence[InstanceGraph]) -> InstanceGraph | None:
        """The merge of graphs of one signature; None if one of them is outside the regular form."""
        found = [graph.addresses for graph in instances]
        rows = [one.row for one in found if one is not None]
        return self._merged(_table(rows), instances[0]) if len(rows) == len(found) else None

    def merge_rows(self, rows: Sequence[bytes], first: InstanceGraph) -> InstanceGraph | None:
        """The merge of the graphs that have these rows, `first` the first of them; None if signatures differ, too."""
        table = _table(rows)
        return self._merged(table, first) if (table[:, SIGNATURE] == id(first.signature)).all() else None

    def _merged(self, rows: np.ndarray, first: InstanceGraph) -> InstanceGraph | None:
        totals = rows[:, :SIGNATURE].sum(0).tolist()
        nodes, edges, stride = totals[NODES], totals[EDGES], first.stride
        if max(nodes * stride, edges) > _MOST:
            return None
        columns = first.signature.attribute_columns if first.signature is not None else ()
        attributes = {}
        # TVM refuses a null pointer, which is what an empty array may have.
        table = np.zeros((max(1, len(columns)), 3), np.int64)
        for number, (key, dtype, shape) in enumerate(columns):
            count = int(rows[:, ATTRIBUTES + 2 * number + 1].sum())
            if count:
                merged_rows = attributes[key] = np.empty((count, *shape), dtype)
                table[number] = merged_rows.__array_interface__["data"][0], merged_rows.nbytes // count, 0
                if merged_rows.nbytes > _MOST:
                    return None
        node_type = np.empty(nodes, np.int16)
        operand_ptr = np.empty(nodes + 1, np.int32)
        operand_value = np.empty(max(1, edges), np.int32)
        use_ptr = np.empty(nodes + 1, np.int32)
        user = np.empty(max(1, totals[USES]), np.int32)
        waits = np.empty(nodes, np.int32)
        outputs = np.empty(max(1, totals[OUTPUTS]), np.int32)
        node_ptr = np.empty(totals[INSTANCES] + 1, np.int32)
        output_ptr = np.empty(totals[INSTANCES] + 1, np.int32)
        scalar_output = np.empty(totals[INSTANCES], np.bool_)
        type_count = np.zeros(first.num_types, np.int64)
        self._merge(
            stride,
            rows,
            node_type,
            operand_ptr,
            operand_value,
            use_ptr,
            user,
            waits,
            outputs,
            node_ptr,
            output_ptr,
            scalar_output.view(np.int8),
            type_count,
            table,
        )
        graph = InstanceGraph(
            node_type,
            operand_ptr,
            operand_value[:edges],
            first.signature,
            attributes=attributes,
            outputs=outputs[: totals[OUTPUTS]],
            node_ptr=node_ptr,
            output_ptr=output_ptr,
            type_label=first.type_label,
            scalar_output=scalar_output,
        )
        graph.uses = Uses(use_ptr, user[: totals[USES]], waits)
        graph.type_count = type_count
        graph.digest_of_parts = hashlib.blake2b(rows[:, DIGEST : DIGEST + 2].tobytes(), digest_size=16).digest()
        return graph


def load() -> NativeMerger:
    """The kernel, built if this machine has none yet.

    Raises
    ------
    ImportError
        If TVM is missing.
    """
    return NativeMerger()


def _table(rows: Sequence[bytes]) -> np.ndarray:
    # From a bytearray: TVM refuses what is read-only.
    return np.frombuffer(bytearray().join(rows), np.int64).reshape(len(rows), -1)
