"""The merging kernel with NumPy arrays; see :class:`edbatch_tvm.graph.native_merge.Merger`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from edbatch_tvm.graph.array_addresses import (
    ATTRIBUTES,
    DIGEST,
    SIGNATURE,
)
from edbatch_tvm.graph.external_rows import merge_external
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.graph.node_users import Uses
from edbatch_tvm.graph.spec import Signature
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
        rows = [row for row in map(InstanceGraph.address_row, instances) if row is not None]
        merged = self._merged(_table(rows), instances[0]) if len(rows) == len(instances) else None
        if merged is not None:
            merge_external(instances, merged)
        return merged

    def merge_rows(
        self, rows: Sequence[bytes], first: InstanceGraph, signature: Signature | None = None
    ) -> InstanceGraph | None:
        """See :class:`edbatch_tvm.graph.native_merge.Merger`."""
        table = _table(rows)
        same = table[:, SIGNATURE].tolist().count(id(first.signature)) == len(rows)
        return self._merged(table, first, signature) if same else None

    def _merged(
        self, rows: np.ndarray, first: InstanceGraph, signature: Signature | None = None
    ) -> InstanceGraph | None:
        signature = signature or first.signature
        stride = first.stride if signature is None else signature.stride
        totals = rows.sum(0).tolist()  # those of identities and addresses mean nothing
        nodes, edges, outputs, instances, uses = totals[:SIGNATURE]
        # All arrays of int32 lie one behind the other: one argument instead of eight.
        lengths = nodes + 1, edges, nodes + 1, uses, nodes, outputs, instances + 1, instances + 1
        if max(nodes * stride, sum(lengths)) > _MOST:
            return None
        columns = first.signature.attribute_columns if first.signature is not None else ()
        attributes = {}
        # TVM refuses a null pointer, which is what an empty array may have.
        table = np.zeros((max(1, len(columns)), 3), np.int64)
        for number, (key, dtype, shape) in enumerate(columns):
            count = totals[ATTRIBUTES + 2 * number + 1]
            if count:
                merged_rows = attributes[key] = np.empty((count, *shape), dtype)
                table[number] = merged_rows.__array_interface__["data"][0], merged_rows.nbytes // count, 0
                if merged_rows.nbytes > _MOST:
                    return None
        node_type = np.empty(nodes, np.int16)
        scalar_output = np.empty(instances, np.bool_)
        type_count = np.zeros(first.num_types, np.int64)
        block = np.empty(sum(lengths), np.int32)
        self._merge(first.stride, stride, rows, node_type, block, scalar_output.view(np.int8), type_count, table)
        ends = list(accumulate(lengths))
        operand_ptr, operand_value, use_ptr, user, waits, declared, node_ptr, output_ptr = [
            block[end - length : end] for length, end in zip(lengths, ends, strict=True)
        ]
        graph = InstanceGraph(
            node_type,
            operand_ptr,
            operand_value,
            signature,
            attributes=attributes,
            outputs=declared,
            node_ptr=node_ptr,
            output_ptr=output_ptr,
            type_label=first.type_label if first.signature is None else None,
            scalar_output=scalar_output,
        )
        graph.uses = Uses(use_ptr, user, waits)
        graph.type_count = type_count
        if 0 not in rows[:, DIGEST].tolist():  # else somebody would have to hash a part: see NO_DIGEST
            graph.part_digests = rows[:, DIGEST : DIGEST + 2]
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
