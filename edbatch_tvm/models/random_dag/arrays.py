"""Instances of random typed DAGs from arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from edbatch_tvm.graph import Signature
from edbatch_tvm.models.flat_items import FlatSequences, offsets, positions
from edbatch_tvm.models.flatten import flat_sequences
from edbatch_tvm.models.minibatch_arrays import MinibatchArrays, Read
from edbatch_tvm.models.random_dag.build import INNER, Node


@dataclass(frozen=True, eq=False)
class FlatDags:
    """Typed DAGs.

    Attributes
    ----------
    nodes : FlatSequences
        The word of each input; of an inner node -1 less the number of its cell in INNER.
    operands : FlatSequences
        What each node reads: numbers of earlier nodes of its DAG.
    """

    nodes: FlatSequences
    operands: FlatSequences

    def __len__(self) -> int:
        return len(self.nodes)

    def part(self, begin: int, end: int) -> FlatDags:
        """DAGs `begin` to `end`."""
        ptr = self.nodes.ptr
        return FlatDags(self.nodes.part(begin, end), self.operands.part(ptr[begin], ptr[min(end, len(self))]))


def flat_dags(items: Sequence[Sequence[Node]]) -> FlatDags:
    """DAGs as arrays."""
    code = {cell: -1 - number for number, cell in enumerate(INNER)}
    nodes = [[node if isinstance(node, int) else code[node[0]] for node in item] for item in items]
    operands = [() if isinstance(node, int) else node[1] for node in chain.from_iterable(items)]
    return FlatDags(flat_sequences(nodes), flat_sequences(operands))


def dag_arrays(signature: Signature, dags: FlatDags) -> MinibatchArrays:
    """The instances that :func:`edbatch_tvm.models.random_dag.build.dag_graph` builds of DAGs.

    A DAG has the calls of its nodes, then the readouts of those that no other reads.
    """
    nodes, operands = dags.nodes, dags.operands
    sizes, degrees = np.diff(nodes.ptr), np.diff(operands.ptr)
    begin = np.repeat(nodes.ptr[:-1], sizes)
    read = operands.values + np.repeat(begin, degrees)
    unread = np.ones(len(begin), bool)
    unread[read] = False
    readouts = offsets(unread)
    made = MinibatchArrays(signature, nodes.ptr + readouts[nodes.ptr])
    call = np.arange(len(begin), dtype=np.int32) + np.repeat(readouts[nodes.ptr[:-1]], sizes)
    inputs = nodes.values >= 0
    made.add("input", call[inputs], word=nodes.values[inputs])
    for number, cell in enumerate(INNER):
        own = np.flatnonzero(nodes.values == -1 - number)
        places = positions(operands.ptr[own], degrees[own])
        made.add(cell, call[own], Read(made.value(call[read[places]]), 1, degrees[own]))
    readout = (np.repeat(nodes.ptr[1:], sizes) + readouts[:-1])[unread]
    made.add("readout", readout, Read(made.value(call[unread])))
    return made.declare(readout, readouts[nodes.ptr])
