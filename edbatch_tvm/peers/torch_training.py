"""Training steps on PyTorch with autograd: batched by hand, level by level, and one node at a time.

The cells are those of :mod:`edbatch_tvm.peers.torch_models` without writing in place, which autograd forbids. Gates
stay fused: the fused matrices are the parameters, as in a model that was written so. A step is a forward pass, the sum
of the cross entropies of all outputs, and the gradients of all parameters, as tensors.

Three ways to keep the values of a level for later ones, of which the fastest counts:

======== ============================================================================================================
slices   a level writes its slice of one buffer in place; autograd copies the whole gradient of the buffer for each
levels   rows of earlier levels by ``index_select`` of each level that a batch reads, joined and put in order
arena    a read adds its gradient to one buffer of gradients, by two autograd functions of our own
======== ============================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edbatch_tvm.graph import CellSignature, InstanceGraph
from edbatch_tvm.peers.hand_batches import PHASES, hand_batches, phases_of
from edbatch_tvm.peers.torch_cells import Out, TorchCell
from edbatch_tvm.peers.torch_models import MODELS
from edbatch_tvm.peers.torch_runs import by_operand, is_variadic
from edbatch_tvm.peers.torch_sequences import SIDES, Sentences, lstm_weights

FORMS = ("slices", "levels", "arena")


# Cells without writing in place ---------------------------------------------------------------------------------------


def lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The next (h, c) from pre-activations ``[n, 4 H]`` in the order i, f, o, g."""
    size = gates.shape[-1] // 4
    i, f, o = gates[..., : 3 * size].sigmoid().chunk(3, -1)
    c_next = torch.addcmul(f * c, i, gates[..., 3 * size :].tanh())
    return o * torch.tanh(c_next), c_next


def _leaf(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
    iou = torch.addmm(w[2], ahead, w[1])
    size = iou.shape[1] // 3
    i, o = iou[:, : 2 * size].sigmoid().chunk(2, 1)
    c = i * iou[:, 2 * size :].tanh()
    return o * torch.tanh(c), c


def _internal(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
    rows = groups[0].flatten(1)
    size = rows.shape[1] // 4
    gates = torch.addmm(w[1], rows[:, : 2 * size], w[0])
    i, o, f1, f2 = gates[:, : 4 * size].sigmoid().chunk(4, 1)
    kept = torch.addcmul(f1 * rows[:, 2 * size : 3 * size], f2, rows[:, 3 * size :])
    c = torch.addcmul(kept, i, gates[:, 4 * size :].tanh())
    return o * torch.tanh(c), c


def _lookup_lstm(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
    h, c = groups[0].unbind(1)
    return lstm(torch.addmm(ahead, h, w[2]), c)


def _step_lstm(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
    xhc = groups[0].flatten(1)
    size = xhc.shape[1] // 3
    return lstm(torch.addmm(w[1], xhc[:, : 2 * size], w[0]), xhc[:, 2 * size :])


def _start(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
    return tuple(w)


def _join(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
    return tuple(rows.summed() for rows in groups)


def _tag(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
    return (torch.mm(torch.mm(groups[0].flatten(1), w[0]).tanh(), w[1]),)


STEPS: Mapping[str, Mapping[str, Callable[..., tuple[Tensor, ...]]]] = {
    "treelstm": {"leaf": _leaf, "internal": _internal},
    "lattice-lstm": {"start": _start, "char_arc": _lookup_lstm, "word_arc": _lookup_lstm, "join": _join},
    "bilstm-tagger": {
        **{f"{side}_layer1": _lookup_lstm for side in ("forward", "backward")},
        **{f"{side}_layer2": _step_lstm for side in ("forward", "backward")},
        "tag": _tag,
    },
}
"""Steps of cells in place of those that write in place; other cells are used as they are."""


def training_cells(workload: str) -> dict[str, TorchCell]:
    """The cells of a workload, for autograd."""
    steps = STEPS[workload]
    return {name: replace(cell, step=steps.get(name, cell.step)) for name, cell in MODELS[workload]().items()}


@dataclass(frozen=True, eq=False)
class SummedRows:
    """Rows of a variadic operand, of which each belongs to the node `owner` says."""

    rows: Tensor
    owner: Tensor
    nodes: int

    def summed(self) -> Tensor:
        """Their sum for each node."""
        zeros = self.rows.new_zeros(self.nodes, *self.rows.shape[1:])
        return zeros.index_add(0, self.owner, self.rows)


# Parameters -----------------------------------------------------------------------------------------------------------


class Parameters:
    """The weights of a model as PyTorch's engineer has them: fused, each a leaf that gets a gradient.

    Parameters
    ----------
    prepare : mapping of str to callable
        For each cell, a function of the weights as written that gives the fused ones.
    weights : mapping of str to array
        Those of the cells as written.
    dtype : torch.dtype
    """

    def __init__(
        self, prepare: Mapping[str, Callable[[Any], Any]], weights: Mapping[str, np.ndarray], dtype: torch.dtype
    ) -> None:
        self._raw = {name: torch.tensor(array, dtype=dtype).requires_grad_() for name, array in weights.items()}
        self._fused: list[Tensor] = []
        self.leaves: list[Tensor] = []
        self.of_cell = {name: self._as_leaves(fuse(self._raw)) for name, fuse in prepare.items()}

    def _as_leaves(self, prepared: Any) -> Any:
        if isinstance(prepared, Tensor):
            self._fused.append(prepared)
            self.leaves.append(prepared.detach().clone().requires_grad_())
            return self.leaves[-1]
        return None if prepared is None else [self._as_leaves(one) for one in prepared]

    def gradients_as_written(self, gradients: tuple[Tensor | None, ...]) -> dict[str, np.ndarray]:
        """Gradients of the leaves as those of the weights of the cells as written."""
        both = zip(self._fused, gradients, strict=True)
        pairs = [(one, own) for one, own in both if own is not None and one.requires_grad]
        raw = list(self._raw.values())
        found = torch.autograd.grad([one for one, _ in pairs], raw, [own for _, own in pairs], allow_unused=True)
        return {
            name: (torch.zeros_like(weight) if own is None else own).numpy()
            for (name, weight), own in zip(self._raw.items(), found, strict=True)
        }


# Where values are kept ------------------------------------------------------------------------------------------------


class _Slices:
    """One buffer for each shape; writes go through autograd's own slices."""

    def __init__(self, run: ByLevel) -> None:
        self._buffers = [torch.zeros(rows, *shape, dtype=run.dtype) for rows, shape in run.arenas]

    def read(self, read: _Read) -> Tensor:
        return self._buffers[read.arena].index_select(0, read.index)

    def write(self, write: _Write, value: Tensor) -> None:
        self._buffers[write.arena][write.begin : write.end] = value


class _Levels:
    """The result of each batch by itself."""

    def __init__(self, run: ByLevel) -> None:
        self._zeros = [torch.zeros(1, *shape, dtype=run.dtype) for _, shape in run.arenas]
        self._parts: dict[tuple[int, int], Tensor] = {}

    def read(self, read: _Read) -> Tensor:
        parts = [
            (self._parts[read.arena, begin] if begin else self._zeros[read.arena]).index_select(0, index)
            for begin, index in read.parts
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts).index_select(0, read.order)

    def write(self, write: _Write, value: Tensor) -> None:
        self._parts[write.arena, write.begin] = value


class _ReadRows(torch.autograd.Function):
    """Rows of an arena; the gradient is added to the arena's. The token makes writes wait for later reads."""

    @staticmethod
    def forward(ctx: Any, token: Tensor, values: Tensor, gradients: Tensor, index: Tensor) -> Tensor:
        ctx.gradients, ctx.index = gradients, index
        return values.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        ctx.gradients.index_add_(0, ctx.index, g)
        return g.new_zeros(()), None, None, None


class _WriteRows(torch.autograd.Function):
    """Write rows of an arena; gives the next token."""

    @staticmethod
    def forward(ctx: Any, token: Tensor, rows: Tensor, gradients: Tensor, value: Tensor) -> Tensor:
        rows.copy_(value)
        ctx.gradients = gradients
        return token.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g, None, None, ctx.gradients


class _Arena:
    """A buffer of values and one of gradients for each shape."""

    def __init__(self, run: ByLevel) -> None:
        self._values = [torch.zeros(rows, *shape, dtype=run.dtype) for rows, shape in run.arenas]
        self._gradients = [torch.zeros_like(values) for values in self._values]
        self._token = torch.zeros((), dtype=run.dtype).requires_grad_()

    def read(self, read: _Read) -> Tensor:
        arena = read.arena
        found: Tensor = _ReadRows.apply(self._token, self._values[arena], self._gradients[arena], read.index)
        return found

    def write(self, write: _Write, value: Tensor) -> None:
        part = slice(write.begin, write.end)
        rows, gradients = self._values[write.arena][part], self._gradients[write.arena][part]
        self._token = _WriteRows.apply(self._token, rows, gradients, value)


_STORES: Mapping[str, Callable[[ByLevel], Any]] = {"slices": _Slices, "levels": _Levels, "arena": _Arena}


# Runs -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Read:
    """Rows that a batch reads: of one arena, by place; and by the batches that wrote them.

    ``parts`` has the begin of a batch and the rows in it; ``order`` puts the parts, one after the other, in order.
    """

    arena: int
    index: Tensor
    parts: list[tuple[int, Tensor]]
    order: Tensor
    shape: tuple[int, ...]
    owner: Tensor | None


@dataclass(frozen=True)
class _Write:
    arena: int
    begin: int
    end: int


@dataclass(frozen=True, eq=False)
class _Call:
    cell: str
    reads: list[_Read]
    writes: list[_Write]
    nodes: int


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
        One of :data:`STEPS`.
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
        self._store = _STORES[form]
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

    def _group(self, store: Any, read: _Read, nodes: int) -> Any:
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

    def _call(self, kind: int, nodes: np.ndarray) -> _Call:
        cell = self.signature[kind]
        writes = []
        for slot, arena in enumerate(_arenas(self.signature, kind)):
            begin = int(self._row[nodes[0] * self.graph.stride + slot])
            writes.append(_Write(arena, begin, begin + len(nodes)))
        reads = [self._reads(cell, names, nodes) for names in self.cells[cell.name].reads]
        return _Call(cell.name, reads, writes, len(nodes))

    def _reads(self, cell: CellSignature, names: tuple[str, ...], nodes: np.ndarray) -> _Read:
        pointer, values = self.graph.operand_ptr, self.graph.operand_value
        given = [by_operand(cell, values[pointer[node] : pointer[node + 1]].tolist()) for node in nodes.tolist()]
        (spec,) = {operand.spec for operand in cell.operands if operand.name in names}
        rows = np.array([self._row[v] if v >= 0 else 0 for one in given for name in names for v in one[name]], np.int64)
        owner = None
        if is_variadic(cell, names[0]):
            owner = np.repeat(np.arange(len(nodes)), [len(one[names[0]]) for one in given])
        return self._read(self.signature.value_specs.index(spec), rows, (len(nodes), len(names)), owner)

    def _read(self, arena: int, rows: np.ndarray, shape: tuple[int, ...], owner: np.ndarray | None) -> _Read:
        begins = np.array(self._begins[arena])
        batch = np.searchsorted(begins, rows, side="right") - 1
        order = np.argsort(batch, kind="stable")
        parts = [
            (int(begins[one]), torch.from_numpy(rows[batch == one] - begins[one])) for one in np.unique(batch).tolist()
        ]
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        of_row = None if owner is None else torch.from_numpy(owner)
        return _Read(arena, torch.from_numpy(rows), parts, torch.from_numpy(back), shape, of_row)


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
