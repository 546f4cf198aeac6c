"""Which values the batches of a schedule read: in plain Python, for the planners."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.graph.spec import Operand
from edbatch_tvm.memory.layout import signature_of


class Reads:
    """Operands of the batches of a schedule.

    Attributes
    ----------
    batch_of : list of int
        Batch of each node.
    batch_type : list of int
    batches : list of list of int
        Nodes of each batch, as in the schedule.
    """

    def __init__(self, graph: InstanceGraph, schedule: Schedule) -> None:
        self.cells = signature_of(graph).cells
        self.stride = graph.stride
        self.batch_type: list[int] = schedule.batch_type.tolist()
        self.batches: list[list[int]] = [nodes.tolist() for _, nodes in schedule]
        self.batch_of = [0] * graph.num_nodes
        for batch, nodes in enumerate(self.batches):
            for node in nodes:
                self.batch_of[node] = batch
        self._pointer: list[int] = graph.operand_ptr.tolist()
        self._values: list[int] = graph.operand_value.tolist()

    def operands(self, batch: int, nodes: Iterable[int]) -> Iterator[tuple[Operand, list[int]]]:
        """The operands of `batch`, each with the values that `nodes` read, in this order."""
        cell = self.cells[self.batch_type[batch]]
        read: list[list[int]] = [[] for _ in cell.operands]
        for node in nodes:
            at, end = self._pointer[node : node + 2]
            repeat = (end - at - cell.fixed_arity) // max(1, cell.variadic_count)
            for operand, values in zip(cell.operands, read, strict=True):
                width = repeat if operand.variadic else 1
                values.extend(self._values[at : at + width])
                at += width
        yield from zip(cell.operands, read, strict=True)
