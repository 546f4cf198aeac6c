"""Which weights the cotangents of a backward pass reach: others have no gradient, where a cell's gradient is zero.

An optimizer skips a parameter without a gradient, but decays one whose gradient is zero. A cell has two heads; where a
loss uses the first one alone, the weights of the second have no gradient. Outputs are told apart by type of node, not
by node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edbatch_tvm.graph import InstanceGraph, Signature
from edbatch_tvm.training.graph_rows import OperandEntries
from relay_ext.gradients.adjoint_cells import AdjointCell, Adjoints
from relay_ext.tabulate_products import DerivedWeight

_FEW = 256
"""Operands that are looked at before all are."""


@dataclass(frozen=True)
class Reach:
    """What the cotangent of an output of a cell reaches.

    Attributes
    ----------
    expressions : frozenset of str
        Keys of :attr:`Adjoints.expressions`.
    operands : frozenset of int
        The places of operands that have a gradient.
    """

    expressions: frozenset[str]
    operands: frozenset[int]

    @classmethod
    def of(cls, adjoint: AdjointCell) -> Reach:
        """What the cotangents that an adjoint reads reach."""
        operands = frozenset(place for place, slot in enumerate(adjoint.operands) if slot is not None)
        return cls(frozenset(term.expression for term in adjoint.terms), operands)


class ReachedWeights:
    """Finds the weights that cotangents reach.

    Parameters
    ----------
    cells : Signature
        Those of the graphs, without what they save.
    adjoints : Adjoints
        Of the cells.
    derived : sequence of DerivedWeight
        The weights of the cells that are tables of products.
    """

    def __init__(self, cells: Signature, adjoints: Adjoints, derived: Sequence[DerivedWeight] = ()) -> None:
        self._cells = cells
        self._adjoints = adjoints
        self._factors = {one.name: (one.table, one.weight) for one in derived}
        self._outputs = [adjoints.cells[cell.name].outputs for cell in cells]
        self._several = [type_id for type_id, count in enumerate(self._outputs) if count > 1]
        self._known: dict[int, list[Reach]] = {}

    def _of_type(self, type_id: int) -> list[Reach]:
        """What the outputs of a type reach."""
        if type_id not in self._known:
            name = self._cells[type_id].name
            adjoint, count = self._adjoints.cells[name], self._outputs[type_id]
            parts = [self._adjoints.partial(name, (place,)) for place in range(count)] if count > 1 else [adjoint]
            self._known[type_id] = [Reach.of(part) for part in parts]
        return self._known[type_id]

    def weights(self, graph: InstanceGraph, given: np.ndarray, detached: np.ndarray | None) -> set[str] | None:
        """The weights that the cotangents of some values reach; None: all of the cells that are met.

        Parameters
        ----------
        graph : InstanceGraph
        given : int64 array
            The values whose cotangents are given.
        detached : bool array of shape [nodes] or None
            Nodes that gradients do not pass.
        """
        met = [type_id for type_id in self._several if graph.type_count[type_id]]
        if not met:
            return None
        stride = graph.stride
        if self._few_show_all(graph, given, met):
            return None
        # Zeros and external rows are negative: they count from the end, where nobody looks.
        used = np.zeros(graph.num_nodes * stride + 1 + len(graph.external_row), bool)
        used[graph.operand_value] = used[given] = True
        outputs = used[: graph.num_nodes * stride].reshape(-1, stride)
        lacking = [one for one in met if not self._all_used(outputs, graph.node_type == one, self._outputs[one])]
        if not any(len(set(self._of_type(one))) > 1 for one in lacking):
            return None
        reads = self._reads(graph, detached)
        todo = sorted(self._outputs_of(graph, given))
        present, found = set(todo), set[str]()
        while todo:
            type_id, place = divmod(todo.pop(), stride)
            reach = self._of_type(type_id)[place]
            found |= reach.expressions
            new = set[int]().union(*(reads[type_id, number] for number in reach.operands)) - present
            present |= new
            todo += new
        names = {name for key in found for name in self._adjoints.expressions[key].weights}
        return names.union(*(self._factors.get(name, ()) for name in names))

    def _few_show_all(self, graph: InstanceGraph, given: np.ndarray, types: Sequence[int]) -> bool:
        """Whether the first operands already read every output of some types; most minibatches need no more."""
        node, output = np.divmod(np.concatenate([given, graph.operand_value[:_FEW]]), graph.stride)
        seen = set(zip(graph.node_type[node[node >= 0]].tolist(), output[node >= 0].tolist(), strict=True))
        return all((one, place) in seen for one in types for place in range(self._outputs[one]))

    @staticmethod
    def _all_used(outputs: np.ndarray, nodes: np.ndarray, count: int) -> bool:
        # Output by output: a reduction over the long axis of a narrow array is many times slower.
        return all((nodes & outputs[:, place]).any() for place in range(count))

    def _reads(self, graph: InstanceGraph, detached: np.ndarray | None) -> dict[tuple[int, int], set[int]]:
        """Of each operand of a type the outputs that its nodes read, but for those of detached nodes."""
        found: dict[tuple[int, int], set[int]] = {}
        for type_id in np.flatnonzero(graph.type_count).tolist():
            entries = OperandEntries(graph, type_id, graph.nodes_of(type_id))
            for number in range(len(self._cells[type_id].operands)):
                values = graph.operand_value[entries.of(number)]
                values = values[values >= 0]
                if detached is not None:
                    values = values[~detached[values // graph.stride]]
                found[type_id, number] = self._outputs_of(graph, values)
        return found

    @staticmethod
    def _outputs_of(graph: InstanceGraph, values: np.ndarray) -> set[int]:
        """Of what types and of what outputs values are: ``type id * stride + output``."""
        node, output = np.divmod(values, graph.stride)
        found = np.bincount(graph.node_type[node].astype(np.int64) * graph.stride + output)
        return set(np.flatnonzero(found).tolist())
