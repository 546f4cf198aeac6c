"""Training steps on PyTorch with autograd: batched by hand, level by level, and one node at a time.

A step is a forward pass, the sum of the cross entropies of all outputs, and the gradients of all parameters, as
tensors. Of three ways to keep the values of a level for later ones (:mod:`edbatch_tvm.peers.torch_level_rows`) the
fastest counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edbatch_tvm.graph import CellSignature, InstanceGraph
from edbatch_tvm.peers.hand_batches import PHASES, hand_batches, phases_of
from edbatch_tvm.peers.torch_level_rows import STORES, LevelCall, Read, Write
from edbatch_tvm.peers.torch_runs import by_operand, is_variadic
from edbatch_tvm.peers.torch_sequences import SIDES, Sentences, lstm_weights
from edbatch_tvm.peers.torch_training_cells import Parameters, SummedRows, training_cells

FORMS = tuple(STORES)


class _Run:
    """A step that computes a loss of its outputs and the gradients of its parameters."""

    def __init__(
        self,
        workload: str,
        graph: InstanceGraph,
        weights: Mapping[str, np.ndarray],
        labels: np.ndarray,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        assert graph.signature is not None
        self.graph, self.signature, self.dtype = graph, graph.signature, dtype
        self.cells = training_cells(workload)
        self.parameters = Parameters(self._prepare(), weights, dtype)
        self._labels = torch.from_numpy(labels.astype(np.int64))
        self._gradients: tuple[Tensor | None, ...] = ()
        self.loss = 0.0

    def _prepare(self) -> dict[str, Callable[[Any], Any]]:
        return {name: cell.prepare for name, cell in self.cells.items()}

    def run(self) -> None:
        """One step."""
        loss = torch.nn.functional.cross_entropy(self.logits(), self._labels, reduction="sum")
        self._gradients = torch.autograd.grad(loss, self.parameters.leaves, allow_unused=True)
        self.loss = float(loss.detach())

    def logits(self) -> Tensor:
        """The declared outputs, one per row."""
        raise NotImplementedError

    def gradients(self) -> dict[str, np.ndarray]:
        """The gradients of the last step, of the weights as written."""
        return self.parameters.gradients_as_written(self._gradients)


class ByLevel(_Run):
    """Batched by hand, level by level; index tensors are made here, ahead of the steps.

    Parameters
    ----------
    workload : str
        One of :data:`edbatch_tvm.peers.torch_training_cells.STEPS`.
    graph : InstanceGraph
        A minibatch.
    weights : mapping of str to array
    labels : int array
        A class for each declared output.
    form : {"slices", "levels", "arena"}
    dtype : torch.dtype
    """

    def __init__(
        self,
        workload: str,
        graph: InstanceGraph,
        weights: Mapping[str, np.ndarray],
        labels: np.ndarray,
        form: str,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(workload, graph, weights, labels, dtype)
        self._store = STORES[form]
        batches = hand_batches(graph, PHASES.get(workload) or phases_of(graph))
        self._place(batches)
        self._attributes = self._in_order(batches)
        self._calls = [self._call(kind, nodes) for kind, nodes in batches]
        wanted = graph.outputs.astype(np.int64)
        kinds = graph.node_type[wanted // graph.stride]
        arena = int(self.signature.output_arena[kinds[0], wanted[0] % graph.stride])
        self._outputs = self._read(arena, self._row[wanted], (len(wanted),), None)

    def logits(self) -> Tensor:
        """The declared outputs, one per row."""
        store = self._store(self)
        ahead: dict[str, Any] = {}
        parameters = self.parameters.of_cell
        for name, attributes in self._attributes.items():
            compute = self.cells[name].ahead
            assert compute is not None
            # A split is one node of autograd's graph; a slice for each batch would make as many gradients of all rows.
            ahead[name] = iter(compute(parameters[name], attributes).split(self._counts[name]))
        nothing = [None] * self.graph.stride
        for call in self._calls:
            groups = [self._group(store, read, call.nodes) for read in call.reads]
            own = next(ahead[call.cell]) if call.cell in ahead else None
            results = self.cells[call.cell].step(parameters[call.cell], own, groups, nothing)
            for write, value in zip(call.writes, results, strict=True):
                store.write(write, value.expand(call.nodes, *value.shape[1:]))
        found: Tensor = store.read(self._outputs)
        return found

    def _group(self, store: Any, read: Read, nodes: int) -> Any:
        rows = store.read(read)
        return rows.view(*read.shape, *rows.shape[1:]) if read.owner is None else SummedRows(rows, read.owner, nodes)

    def _place(self, batches: list[tuple[int, np.ndarray]]) -> None:
        """Rows of all values, batch after batch; row 0 stays zero."""
        stride = self.graph.stride
        self._row = np.zeros(self.graph.num_nodes * stride, np.int64)
        used = np.ones(len(self.signature.value_specs), np.int64)
        self._begins: list[list[int]] = [[0] for _ in used]
        for kind, nodes in batches:
            for slot, arena in enumerate(_arenas(self.signature, kind)):
                self._begins[arena].append(int(used[arena]))
                self._row[nodes * stride + slot] = used[arena] + np.arange(len(nodes))
                used[arena] += len(nodes)
        self.arenas = [(rows, spec.shape) for rows, spec in zip(used.tolist(), self.signature.value_specs, strict=True)]

    def _in_order(self, batches: list[tuple[int, np.ndarray]]) -> dict[str, list[Tensor]]:
        """Attributes of each cell that has some, in the order of the batches."""
        found = {}
        self._counts: dict[str, list[int]] = {}
        for kind, cell in enumerate(self.signature):
            nodes = [batch for of, batch in batches if of == kind]
            if cell.attributes and nodes:
                place = np.searchsorted(self.graph.nodes_of(kind), np.concatenate(nodes))
                arrays = [self.graph.attributes[kind, a.name][place] for a in cell.attributes]
                found[cell.name] = [torch.from_numpy(array.astype(np.int64)) for array in arrays]
                self._counts[cell.name] = [len(batch) for batch in nodes]
        return found

    def _call(self, kind: int, nodes: np.ndarray) -> LevelCall:
        cell = self.signature[kind]
        writes = []
        for slot, arena in enumerate(_arenas(self.signature, kind)):
            begin = int(self._row[nodes[0] * self.graph.stride + slot])
            writes.append(Write(arena, begin, begin + len(nodes)))
        reads = [self._reads(cell, names, nodes) for names in self.cells[cell.name].reads]
        return LevelCall(cell.name, reads, writes, len(nodes))

    def _reads(self, cell: CellSignature, names: tuple[str, ...], nodes: np.ndarray) -> Read:
        pointer, values = self.graph.operand_ptr, self.graph.operand_value
        given = [by_operand(cell, values[pointer[node] : pointer[node + 1]].tolist()) for node in nodes.tolist()]
        (spec,) = {operand.spec for operand in cell.operands if operand.name in names}
        rows = np.array([self._row[v] if v >= 0 else 0 for one in given for name in names for v in one[name]], np.int64)
        owner = None
        if is_variadic(cell, names[0]):
            owner = np.repeat(np.arange(len(nodes)), [len(one[names[0]]) for one in given])
        return self._read(self.signature.value_specs.index(spec), rows, (len(nodes), len(names)), owner)

    def _read(self, arena: int, rows: np.ndarray, shape: tuple[int, ...], owner: np.ndarray | None) -> Read:
        begins = np.array(self._begins[arena])
        batch = np.searchsorted(begins, rows, side="right") - 1
        order = np.argsort(batch, kind="stable")
        parts = [
            (int(begins[one]), torch.from_numpy(rows[batch == one] - begins[one])) for one in np.unique(batch).tolist()
        ]
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        of_row = None if owner is None else torch.from_numpy(owner)
        return Read(arena, torch.from_numpy(rows), parts, torch.from_numpy(back), shape, of_row)


class OneByOne(_Run):
    """One node at a time, as a model runs that is written for one input."""

    def __init__(
        self,
        workload: str,
        graph: InstanceGraph,
        weights: Mapping[str, np.ndarray],
        labels: np.ndarray,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(workload, graph, weights, labels, dtype)
        self._calls = list(self._nodes())

    def _nodes(self) -> Iterator[tuple[str, list[tuple[bool, list[int], tuple[int, ...]]], list[Tensor]]]:
        """Of each node its cell, the values of each group of operands, its attributes."""
        pointer, values = self.graph.operand_ptr.tolist(), self.graph.operand_value.tolist()
        position = [0] * self.graph.num_types
        for node, kind in enumerate(self.graph.node_type.tolist()):
            cell = self.signature[kind]
            given = by_operand(cell, values[pointer[node] : pointer[node + 1]])
            groups = [
                (
                    is_variadic(cell, names[0]),
                    [value for name in names for value in given[name]],
                    next(o.spec.shape for o in cell.operands if o.name == names[0]),
                )
                for names in self.cells[cell.name].reads
            ]
            row = slice(position[kind], position[kind] + 1)
            attributes = [
                torch.from_numpy(self.graph.attributes[kind, a.name][row].astype(np.int64)) for a in cell.attributes
            ]
            position[kind] += 1
            yield cell.name, groups, attributes

    def logits(self) -> Tensor:
        """The declared outputs, one per row."""
        stride = self.graph.stride
        nothing = [None] * stride
        results: list[Any] = []
        for name, groups, attributes in self._calls:
            cell, weights = self.cells[name], self.parameters.of_cell[name]
            ahead = cell.ahead(weights, attributes) if cell.ahead is not None else None
            operands: list[Any] = []
            for variadic, values, shape in groups:
                rows = [
                    results[value // stride][value % stride] if value >= 0 else torch.zeros(1, *shape, dtype=self.dtype)
                    for value in values
                ]
                operands.append(_OneSum(torch.cat(rows)) if variadic else torch.stack(rows, 1))
            results.append(cell.step(weights, ahead, operands, nothing))
        return torch.cat([results[v // stride][v % stride] for v in self.graph.outputs.tolist()])


@dataclass(frozen=True, eq=False)
class _OneSum:
    """Rows of a variadic operand of one node."""

    rows: Tensor

    def summed(self) -> Tensor:
        return self.rows.sum(0, keepdim=True)


class PackedTagger(_Run):
    """The tagger on what ``torch.nn.LSTM`` runs for packed sequences, sorted by length ahead of the steps."""

    def _prepare(self) -> dict[str, Callable[[Any], Any]]:
        self._sentences = Sentences(self.graph)
        own: dict[str, Callable[[Any], Any]] = {side: partial(lstm_weights, side=side) for side in SIDES}
        return own | {"words": lambda w: w["embedding"], "tag": lambda w: [w["T_tag"], w["O_tag"]]}

    def logits(self) -> Tensor:
        """The declared outputs, one per row."""
        these, parameters = self._sentences, self.parameters.of_cell
        sizes = torch.tensor(these.sizes)
        states = []
        for side, words, back in zip(SIDES, these.words, these.back, strict=True):
            x = parameters["words"].index_select(0, words)
            zero = x.new_zeros(2, these.sizes[0], x.shape[1])
            h, *_ = torch._VF.lstm(x, sizes, (zero, zero), parameters[side], True, 2, 0.0, True, False)
            states.append(h.index_select(0, back))
        inner, outer = parameters["tag"]
        return torch.mm(torch.mm(torch.cat(states, 1), inner).tanh(), outer)


def _arenas(signature: Any, kind: int) -> list[int]:
    return [arena for arena in signature.output_arena[kind].tolist() if arena >= 0]
