"""PyTorch runs of a minibatch: one node at a time, and batched by hand over buffers of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from edbatch_tvm.errors import EdbatchError
from edbatch_tvm.graph import CellSignature, InstanceGraph
from edbatch_tvm.peers.hand_batches import PHASES, hand_batches, phases_of
from edbatch_tvm.peers.torch_cells import Rows, TorchCell
from edbatch_tvm.peers.torch_models import MODELS


class OneByOne:
    """One node at a time, as a model runs that is written for one input.

    Parameters
    ----------
    workload : str
    graph : InstanceGraph
        A minibatch.
    weights : mapping of str to float32 array
    """

    def __init__(self, workload: str, graph: InstanceGraph, weights: Mapping[str, np.ndarray]) -> None:
        assert graph.signature is not None
        self._graph = graph
        cells = MODELS[workload]()
        tensors = _tensors(weights)
        self._cells = [cells[name] for name in graph.signature.names]
        self._weights = [cell.prepare(tensors) for cell in self._cells]
        self._calls = list(self._nodes(graph))
        self._values: list[Any] = []

    def _nodes(self, graph: InstanceGraph) -> Any:
        """Of each node its type, the values of each group of operands, its attributes."""
        assert graph.signature is not None
        pointer, values = graph.operand_ptr.tolist(), graph.operand_value.tolist()
        position = [0] * graph.num_types
        for node, kind in enumerate(graph.node_type.tolist()):
            cell = graph.signature[kind]
            given = by_operand(cell, values[pointer[node] : pointer[node + 1]])
            groups = [
                (any(is_variadic(cell, name) for name in names), [v for name in names for v in given[name]])
                for names in self._cells[kind].reads
            ]
            shapes = [
                next(o.spec.shape for o in cell.operands if o.name == names[0]) for names in self._cells[kind].reads
            ]
            row = slice(position[kind], position[kind] + 1)
            attributes = [torch.from_numpy(graph.attributes[kind, a.name][row]) for a in cell.attributes]
            position[kind] += 1
            yield kind, list(zip(groups, shapes, strict=True)), attributes

    def run(self) -> None:
        """Run the minibatch."""
        stride = self._graph.stride
        nothing = [None] * stride
        results: list[Any] = []
        with torch.inference_mode():
            for kind, groups, attributes in self._calls:
                cell, weights = self._cells[kind], self._weights[kind]
                ahead = cell.ahead(weights, attributes) if cell.ahead is not None else None
                operands: list[Any] = []
                for (variadic, values), shape in groups:
                    rows = [
                        results[value // stride][value % stride] if value >= 0 else torch.zeros(1, *shape)
                        for value in values
                    ]
                    operands.append(_OneNode(torch.cat(rows)) if variadic else torch.stack(rows, 1))
                results.append(cell.step(weights, ahead, operands, nothing))
        self._values = results

    def outputs(self) -> np.ndarray:
        """Declared outputs of the last run, one per row."""
        stride = self._graph.stride
        return np.stack([self._values[v // stride][v % stride][0].numpy() for v in self._graph.outputs.tolist()])


class _OneNode:
    """Rows of a variadic operand of one node; as :class:`edbatch_tvm.peers.torch_cells.Rows`."""

    def __init__(self, rows: torch.Tensor) -> None:
        self._rows = rows

    def all(self) -> torch.Tensor:
        return self._rows

    def reduced(self, mode: str) -> torch.Tensor:
        return self.reduced_of(self._rows, mode)

    def reduced_of(self, values: torch.Tensor, mode: str) -> torch.Tensor:
        if mode == "max":
            return values.amax(0, keepdim=True)
        return values.sum(0, keepdim=True) if mode == "sum" else values.mean(0, keepdim=True)


class ByHand:
    """Batched by hand: one buffer of rows for each shape of values, a batch reads it by index and writes a slice.

    Index tensors, slices and buffers are made here, ahead of the runs.

    Parameters
    ----------
    workload : str
    graph : InstanceGraph
        A minibatch.
    weights : mapping of str to float32 array
    compiled : bool
        Cells under ``torch.compile``, which fuses their element-wise code; results are then copied to their slice.
    device : str
        Where it runs.
    dtype : torch.dtype, optional
        Of weights and values, in place of float32.
    """

    def __init__(
        self,
        workload: str,
        graph: InstanceGraph,
        weights: Mapping[str, np.ndarray],
        compiled: bool = False,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        assert graph.signature is not None
        self._device = device
        self._graph, self._signature = graph, graph.signature
        self._cells = MODELS[workload]()
        self._compiled = compiled
        self._steps = _compiled_steps(self._cells) if compiled else {n: cell.step for n, cell in self._cells.items()}
        tensors = {name: tensor.to(device, dtype) for name, tensor in _tensors(weights).items()}
        self._weights = {name: self._cells[name].prepare(tensors) for name in self._signature.names}
        batches = hand_batches(graph, PHASES.get(workload) or phases_of(graph))
        self._place(batches)
        self._buffers = [
            torch.zeros(int(rows), *spec.shape, device=device, dtype=dtype)
            for rows, spec in zip(self._used, self._signature.value_specs, strict=True)
        ]
        self._attributes = self._in_order(batches)
        self._calls = [self._call(kind, nodes) for kind, nodes in batches]

    def _place(self, batches: list[tuple[int, np.ndarray]]) -> None:
        """Rows of all values, batch after batch; row 0 of every buffer stays zero."""
        stride = self._graph.stride
        self._row = np.zeros(self._graph.num_nodes * stride, np.int64)
        self._used = np.ones(len(self._signature.value_specs), np.int64)
        for kind, nodes in batches:
            for slot, arena in enumerate(self._arenas(kind)):
                self._row[nodes * stride + slot] = self._used[arena] + np.arange(len(nodes))
                self._used[arena] += len(nodes)

    def _arenas(self, kind: int) -> list[int]:
        return [arena for arena in self._signature.output_arena[kind].tolist() if arena >= 0]

    def _in_order(self, batches: list[tuple[int, np.ndarray]]) -> dict[str, list[torch.Tensor]]:
        """Attributes of each cell that has some, in the order of the batches."""
        found = {}
        for kind, cell in enumerate(self._signature):
            nodes = [batch for of, batch in batches if of == kind]
            if cell.attributes and nodes:
                place = np.searchsorted(self._graph.nodes_of(kind), np.concatenate(nodes))
                arrays = [self._graph.attributes[kind, a.name][place] for a in cell.attributes]
                found[cell.name] = [torch.from_numpy(array.astype(np.int64)).to(self._device) for array in arrays]
        self._done = dict.fromkeys(self._signature.names, 0)
        return found

    def _call(self, kind: int, nodes: np.ndarray) -> tuple[str, slice, list[Callable[[], Any]], list[torch.Tensor]]:
        """A batch: cell, its part of what is computed ahead, what reads its operands, where its results go."""
        cell = self._signature[kind]
        first = self._done[cell.name]
        self._done[cell.name] += len(nodes)
        stride = self._graph.stride
        out = []
        for slot, arena in enumerate(self._arenas(kind)):
            row = int(self._row[nodes[0] * stride + slot])
            out.append(self._buffers[arena][row : row + len(nodes)])
        readers = [self._reader(cell, names, nodes) for names in self._cells[cell.name].reads]
        return cell.name, slice(first, first + len(nodes)), readers, out

    def _reader(self, cell: CellSignature, names: tuple[str, ...], nodes: np.ndarray) -> Callable[[], Any]:
        pointer, values = self._graph.operand_ptr, self._graph.operand_value
        given = [by_operand(cell, values[pointer[node] : pointer[node + 1]].tolist()) for node in nodes.tolist()]
        buffer = self._buffers[self._buffer_of(cell, names)]
        rows = np.array([self._row[v] if v >= 0 else 0 for one in given for name in names for v in one[name]], np.int64)
        index = torch.from_numpy(rows).to(self._device)
        if is_variadic(cell, names[0]):
            counts = np.array([len(one[names[0]]) for one in given], np.int64)
            offsets = torch.from_numpy(np.cumsum(counts) - counts).to(self._device)
            variadic = Rows(buffer, index, offsets, torch.arange(len(rows), device=self._device))
            return lambda: variadic
        n, k, shape = len(nodes), len(names), buffer.shape[1:]
        first = int(rows[0])
        if (np.diff(rows) == 1).all():
            contiguous = buffer[first : first + len(rows)].view(n, k, *shape)
            return lambda: contiguous
        return lambda: buffer.index_select(0, index).view(n, k, *shape)

    def _buffer_of(self, cell: CellSignature, names: tuple[str, ...]) -> int:
        specs = {operand.spec for operand in cell.operands if operand.name in names}
        if len(specs) != 1:
            raise EdbatchError(f"operands {', '.join(names)} of {cell.name!r} of several shapes", "an even hidden size")
        return self._signature.value_specs.index(specs.pop())

    def run(self) -> None:
        """Run the minibatch."""
        with torch.inference_mode():
            ahead: dict[str, Any] = {}
            for name, attributes in self._attributes.items():
                compute = self._cells[name].ahead
                assert compute is not None
                ahead[name] = compute(self._weights[name], attributes)
            for name, part, readers, out in self._calls:
                mine = ahead.get(name)
                if mine is not None:
                    mine = tuple(one[part] for one in mine) if isinstance(mine, tuple) else mine[part]
                groups = [read() for read in readers]
                if not self._compiled:
                    self._steps[name](self._weights[name], mine, groups, out)
                    continue
                results = self._steps[name](self._weights[name], mine, groups, [None] * len(out))
                for result, to in zip(results, out, strict=True):
                    to.copy_(result)

    def outputs(self) -> np.ndarray:
        """Declared outputs of the last run, one per row."""
        graph = self._graph
        wanted = graph.outputs.astype(np.int64)
        arena = self._signature.output_arena[graph.node_type[wanted[0] // graph.stride], wanted[0] % graph.stride]
        return self._buffers[int(arena)].float().cpu().numpy()[self._row[wanted]]


def _compiled_steps(cells: Mapping[str, TorchCell]) -> dict[str, Any]:
    torch._dynamo.reset()
    return {name: torch.compile(cell.step, dynamic=True) for name, cell in cells.items()}


def _tensors(weights: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in weights.items()}


def is_variadic(cell: CellSignature, name: str) -> bool:
    """Whether an operand of a cell is variadic."""
    return any(operand.variadic for operand in cell.operands if operand.name == name)


def by_operand(cell: CellSignature, values: list[int]) -> dict[str, list[int]]:
    """Values of one call by operand."""
    repeat = (len(values) - cell.fixed_arity) // cell.variadic_count if cell.variadic_count else 0
    found, position = {}, 0
    for operand in cell.operands:
        count = repeat if operand.variadic else 1
        found[operand.name] = values[position : position + count]
        position += count
    return found
