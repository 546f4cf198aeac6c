"""The arrays of a minibatch from the calls of each cell: what ``Workload.graphs`` makes of flat items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edbatch_tvm.graph import ZERO, InstanceGraph, Signature
from edbatch_tvm.graph.instances_from_arrays import minibatch_from_arrays
from edbatch_tvm.graph.native_builder import native_builder
from edbatch_tvm.models.flat_items import offsets, positions
from edbatch_tvm.models.native_reader import Nodes


class Read(NamedTuple):
    """Values that the calls of a cell read.

    Attributes
    ----------
    first : int32 array of shape [n], or [sum(counts)]
        Of each call the first of `outputs` values of a node, which it reads one after the other; negative for zero
        states.
    outputs : int
    counts : int32 array of shape [n], optional
        How many nodes each call reads, for cells of variadic operands: the first values of all nodes are read, then
        the second ones. There is no other :class:`Read` of such a cell.
    """

    first: np.ndarray
    outputs: int = 1
    counts: np.ndarray | None = None


class MinibatchArrays:
    """The nodes of a minibatch, cell by cell.

    Parameters
    ----------
    signature : Signature
    node_ptr : int32 array of shape [instances + 1]
        Where the nodes of each instance begin.
    """

    def __init__(self, signature: Signature, node_ptr: np.ndarray) -> None:
        self.signature = signature
        self._node_ptr = node_ptr
        self._groups: list[tuple[int, np.ndarray, tuple[Read, ...]]] = []
        self._attributes: dict[tuple[str, str], np.ndarray] = {}
        self._outputs, self._output_ptr = np.empty(0, np.int32), np.zeros(len(node_ptr), np.int32)
        self._nodes: tuple[np.ndarray, ...] | None = None

    @classmethod
    def of_nodes(
        cls,
        signature: Signature,
        nodes: Nodes,
        output_ptr: np.ndarray,
        attributes: Mapping[tuple[str, str], np.ndarray],
    ) -> MinibatchArrays:
        """Those of nodes that compiled code has made."""
        made = cls(signature, nodes.node_ptr)
        made._nodes = nodes.node_type, nodes.operand_ptr, nodes.operand_value
        made._outputs, made._output_ptr, made._attributes = nodes.outputs, output_ptr, dict(attributes)
        return made

    def add(self, cell: str, nodes: np.ndarray, *reads: Read, **attributes: np.ndarray) -> None:
        """All calls of a cell.

        Parameters
        ----------
        cell : str
        nodes : int array of shape [n]
            Their numbers in the minibatch, ascending.
        *reads : Read
            What they read, in the order of their operands.
        **attributes
            A row for each call.
        """
        if not len(nodes):
            return
        self._groups.append((self.signature.type_id(cell), nodes, reads))
        for name, rows in attributes.items():
            self._attributes[cell, name] = rows

    def value(self, nodes: np.ndarray) -> np.ndarray:
        """The first output of nodes, int32."""
        found: np.ndarray = nodes * np.int32(self.signature.stride)
        return found

    def declare(self, outputs: np.ndarray, output_ptr: np.ndarray) -> MinibatchArrays:
        """Declare outputs, the first ones of nodes; `output_ptr` says where those of each instance begin."""
        self._outputs, self._output_ptr = self.value(outputs), output_ptr
        return self

    def instances(self) -> list[InstanceGraph]:
        """The instances."""
        made: list[InstanceGraph] = self._made(merged=False)
        return made

    def minibatch(self) -> InstanceGraph:
        """All instances as one graph."""
        made: InstanceGraph = self._made(merged=True)
        return made

    def _made(self, merged: bool) -> Any:
        types, ptr, values = self._arrays()
        declared = self._node_ptr, self._outputs, self._output_ptr
        return minibatch_from_arrays(self.signature, types, ptr, values, *declared, self._attributes, False, merged)

    def _arrays(self) -> Sequence[np.ndarray]:
        """The arrays ``node_type``, ``operand_ptr`` and ``operand_value``."""
        if self._nodes is not None:
            return self._nodes
        nodes, native = int(self._node_ptr[-1]), native_builder()
        found = native.assembled(nodes, self._groups) if native is not None else None
        return found if found is not None else self._assembled(nodes)

    def _assembled(self, nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same by NumPy."""
        types, counts = np.full(nodes, -1, np.int16), np.zeros(nodes, np.int32)
        for type_id, own, reads in self._groups:
            types[own] = type_id
            for read in reads:
                counts[own] += read.outputs if read.counts is None else read.outputs * read.counts
        ptr = offsets(counts)
        values = np.empty(int(ptr[-1]), np.int32)
        for _, own, reads in self._groups:
            begin = ptr[own]
            for first, outputs, repeated in reads:
                for slot in range(outputs):
                    places = begin if repeated is None else positions(begin, repeated)
                    values[places] = np.where(first < 0, ZERO, first + slot)
                    begin = begin + (1 if repeated is None else repeated)
        return types, ptr, values
