"""Gradients of recorded values, as PyTorch's autograd sees them.

Every round is one node of autograd's graph. Its inputs are the weights of the cells, the tensors from outside that
require a gradient, and the round before it; a tensor that stands for the last input has no other purpose than the order
of the backward pass. What leaves the recorded graph, results and values that PyTorch goes on with, are nodes that read
a round. Their gradients, and those that a later round has for values of an earlier one, are collected in the earlier
round, which autograd runs when every node that reads it has run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from edbatch_tvm.errors import RecordingError
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.graph.instance import FIRST_EXTERNAL
from edbatch_tvm.recording.isolation import switched_to
from edbatch_tvm.recording.specs import TensorSpec
from edbatch_tvm.training.cotangents import Cotangents
from edbatch_tvm.training.weight_sums import sum_rows

if TYPE_CHECKING:
    from edbatch_tvm.recording.library import Library
    from edbatch_tvm.recording.outside import Outside
    from edbatch_tvm.recording.recorded_elements import Content
    from edbatch_tvm.training import TrainingResult
    from edbatch_tvm.training.gradients import Gradients

_task: Any = torch._C._current_graph_task_id
_keeps_graph: Any = torch._C._autograd._get_current_graph_task_keep_graph

Row = tuple[torch.nn.Parameter, int]
"""A row of a parameter."""

_NOBODY = np.iinfo(np.int64).min
"""An external row that needs no gradient."""

_OF_EAGER = -(1 << 41)
"""What the value of number 0 is called, if the model's own code has computed it; the others follow, falling."""

_OF_CONTENT = -(1 << 40)
"""Tensors from outside of elements that were recorded before have numbers from here on, falling."""

ROW_OF = "_row_of"
"""Attribute of tensors that are rows of parameters: a :data:`Row`."""


class Table(NamedTuple):
    """A parameter of which an embedding reads rows.

    Attributes
    ----------
    sparse : bool
        Whether its gradient is a sparse tensor.
    padding : int
        A row that gets no gradient; -1: there is none.
    """

    sparse: bool
    padding: int

    @classmethod
    def of(cls, model: torch.nn.Module) -> dict[int, Table]:
        """Those of a model whose gradients are not simply that of an array, by the id of the parameter."""
        found = {}
        for one in model.modules():
            if isinstance(one, torch.nn.Embedding | torch.nn.EmbeddingBag):
                padding = -1 if one.padding_idx is None else one.padding_idx
                if one.sparse or padding >= 0:
                    found[id(one.weight)] = cls(one.sparse, padding)
        return found


class External:
    """A tensor from outside that requires a gradient.

    Attributes
    ----------
    tensor : Tensor
        What gets the gradient: the tensor as it was when it was read, or the parameter that it is a row of.
    row : int or None
        Which row of it; None if it is all of it.
    """

    __slots__ = ("row", "tensor")

    def __init__(self, tensor: Tensor, row: int | None = None) -> None:
        self.tensor = tensor
        self.row = row


class _Pending:
    """Gradients of values of one round, of one backward pass."""

    def __init__(self) -> None:
        self.task = -1
        self.parts: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, values: np.ndarray, rows: np.ndarray) -> None:
        """Add the gradients of values of one size: int64 ``[m]`` and float32 ``[m, size]``."""
        if _task() != self.task:  # what is left is of a backward pass that failed
            self.task, self.parts = _task(), []
        self.parts.append((values, rows))

    def take(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """All of them, by size: values, rising, and the sum of the gradients of each."""
        parts, self.parts = (self.parts if _task() == self.task else []), []
        by_size: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        for values, rows in parts:
            by_size.setdefault(rows.shape[1], []).append((values, rows))
        return {
            size: sum_rows(np.concatenate([one for one, _ in found]), np.concatenate([rows for _, rows in found]))
            for size, found in by_size.items()
        }


class CompiledRound:
    """A round that compiled cells have computed.

    Parameters
    ----------
    tape : GradientTape
    result : TrainingResult
    weights : dict of str to Tensor
        The weights of the cells that require a gradient.
    first : int
        The number of the recorder's first value of the round.
    ids : int array
        The value of the graph for each of the recorder's.
    sources : int64 array
        For each external row of the graph what it is to the recorder: the number of an earlier value or, negative, of a
        tensor from outside.
    externals : dict of int to External
        By these numbers; not those of the recorder for rows of elements that were recorded before.
    """

    def __init__(
        self,
        tape: GradientTape,
        result: TrainingResult,
        weights: dict[str, Tensor],
        first: int,
        ids: np.ndarray,
        sources: np.ndarray,
        externals: dict[int, External],
    ) -> None:
        self._tape = tape
        self._result: TrainingResult | None = result
        self._weights = weights
        self.first = first
        self.ids = ids
        self._sources = sources
        self._externals = externals
        self._pending = _Pending()
        self.inputs: dict[int, Tensor] = {id(weight): weight for weight in weights.values()}
        for external in externals.values():
            self.inputs.setdefault(id(external.tensor), external.tensor)
        self.token: Tensor | None = None

    def run(self, before: Tensor | None) -> None:
        """Become a node of autograd's graph after the round `before`."""
        changeable = [one for one in self.inputs.values() if one.is_leaf]
        others = [one for one in self.inputs.values() if not one.is_leaf]
        self.inputs = {id(one): one for one in (*changeable, *others)}
        token = _Round.apply(self, len(changeable), before, *self.inputs.values())
        self.token = token if token.requires_grad else None

    def tensors(self, values: np.ndarray, rows: Tensor) -> Sequence[Tensor]:
        """Values of the graph, one a row of `rows`, as tensors that autograd knows."""
        made = [row.clone() for row in rows.unbind()]
        return made if self.token is None else _Values.apply(self, values, made, self.token)

    def add(self, values: np.ndarray, rows: np.ndarray) -> None:
        """Add gradients of values of the graph."""
        self._pending.add(values, rows)

    def backward(self) -> list[Tensor | None]:
        """The gradients of the inputs, by those of the values."""
        pending = self._pending.take()
        result = self._result
        if not _keeps_graph():
            self._result = None  # its memory is free for the next minibatch
        if not pending:
            return [None] * len(self.inputs)
        assert result is not None
        gradients = result.backward_of(_cotangents(result, pending), retain=True)
        found: dict[int, Tensor] = {}
        for name, weight in self._weights.items():
            if gradients.reaches(name):
                found[id(weight)] = gradient_of_weight(gradients, name, weight, self._tape.tables)
        for one in gradients.external_sums.values():
            sources, rows = self._sources[one.numbers], one.rows.reshape(len(one.rows), -1)
            outside = sources < 0
            self._of_externals(sources[outside], rows[outside], found)
            self._tape.add(sources[~outside], rows[~outside])
        return [found.get(key) for key in self.inputs]

    def _of_externals(self, numbers: np.ndarray, rows: np.ndarray, found: dict[int, Tensor]) -> None:
        """Add gradients of tensors from outside to those that were found."""
        of_rows: dict[int, tuple[Tensor, list[int], list[int]]] = {}
        for place, number in enumerate(numbers.tolist()):
            external = self._externals.get(number)
            if external is None:
                continue
            tensor = external.tensor
            if external.row is not None:
                _, index, places = of_rows.setdefault(id(tensor), (tensor, [], []))
                index.append(external.row)
                places.append(place)
                continue
            gradient = torch.from_numpy(rows[place].copy()).reshape(tensor.shape)
            known = found.get(id(tensor))
            found[id(tensor)] = gradient if known is None else known + gradient
        for key, (tensor, index, places) in of_rows.items():
            known = found.get(key)
            total = torch.zeros_like(tensor) if known is None else known.to_dense()
            parts = torch.from_numpy(rows[places]).reshape(len(places), *tensor.shape[1:])
            found[key] = total.index_add_(0, torch.tensor(index), parts)


class EagerRound:
    """A round that the model's own code has computed, node after node.

    Attributes
    ----------
    first : int
    made : list of Tensor
        Its values, flat; autograd knows how they were made.
    """

    def __init__(self, first: int, made: list[Tensor]) -> None:
        self.first = first
        self.made = made


class GradientTape:
    """What autograd has to know of one minibatch.

    Parameters
    ----------
    library : Library

    Attributes
    ----------
    externals : dict of int to External
        By the recorder's number.
    known_detached : dict of int to int
        What values are detached, by the values that they are of.
    tables : dict of int to Table
        Tables whose gradients are not simply arrays, by the id of the parameter.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self.externals: dict[int, External] = {}
        self.tables = library.tables
        self.rounds: list[CompiledRound | EagerRound] = []
        self._rows: dict[tuple[int, int], tuple[int, int]] = {}
        self._whole: dict[int, tuple[Tensor, int, int]] = {}
        self.known_detached: dict[int, int] = {}
        self._off: list[tuple[int, int]] = []
        self._off_since: int | None = None
        self.token: Tensor | None = None

    # Tensors from outside ---------------------------------------------------------------------------------------

    def number(self, outside: Outside, tensor: Tensor) -> int:
        """The number of a tensor from outside that requires a gradient.

        Raises
        ------
        CellError
            If it cannot be an operand.
        """
        version = tensor._version
        row: Row | None = getattr(tensor, ROW_OF, None)
        if row is not None:
            key = id(row[0]), row[1]
            known = self._rows.get(key)
            if known is not None and known[1] == version:
                return known[0]
            number = outside.new_number(tensor)
            self._rows[key] = number, version
            self.externals[number] = External(row[0], row[1])
            return number
        seen = self._whole.get(id(tensor))
        if seen is not None and seen[1] == version:
            return seen[2]
        # What is written into it later has another gradient: the edge of now is kept.
        with switched_to(self._library.state):
            kept = tensor if tensor.is_leaf else tensor.clone()
        number = outside.new_number(kept)
        self._whole[id(tensor)] = tensor, version, number
        self.externals[number] = External(kept)
        return number

    # Where no gradients are recorded ----------------------------------------------------------------------------

    def switched(self, enabled: bool, recorded: int) -> None:
        """Gradients are recorded from now on or not; `recorded` values are recorded."""
        if enabled and self._off_since is not None:
            if recorded > self._off_since:
                self._off.append((self._off_since, recorded))
            self._off_since = None
        elif not enabled and self._off_since is None:
            self._off_since = recorded

    def detach(self, first: int, end: int) -> None:
        """Let no gradient pass the values from `first` to `end`."""
        self._off.append((first, end))

    def is_detached(self, value: int) -> bool:
        """Whether no gradient passes a value that is recorded."""
        if self._off_since is not None and value >= self._off_since:
            return True
        return any(first <= value < end for first, end in self._off)

    def is_constant(self, value: int) -> bool:
        """Whether a value is detached, or a tensor from outside that requires no gradient."""
        return self.is_detached(value) if value >= 0 else value not in self.externals

    def detached_nodes(self, graph: InstanceGraph, first: int, ids: np.ndarray) -> np.ndarray | None:
        """Which nodes of a graph no gradient passes; None: there are none.

        Parameters
        ----------
        graph : InstanceGraph
        first : int
            The number of the recorder's first value that the graph computes.
        ids : int array
            The value of the graph of each.
        """
        count = len(ids)
        ranges = [*self._off, *([] if self._off_since is None else [(self._off_since, first + count)])]
        found = np.zeros(count, bool)
        for begin, end in ranges:
            found[max(begin - first, 0) : max(end - first, 0)] = True
        if not found.any():
            return None
        nodes = np.zeros(graph.num_nodes, bool)
        nodes[ids[found] // graph.stride] = True
        return nodes

    # Rounds -----------------------------------------------------------------------------------------------------

    def computed(
        self,
        result: TrainingResult,
        first: int,
        ids: np.ndarray,
        operands: np.ndarray,
        contents: Sequence[Content] = (),
        own_size: tuple[int, int] = (0, 0),
    ) -> CompiledRound:
        """A round was computed by compiled cells.

        Parameters
        ----------
        result : TrainingResult
            Of what was recorded, then of `contents`.
        first : int
            The number of the first value.
        ids : int array
            The value of the graph of each.
        operands : int64 array
            What the calls read, by the recorder's numbers.
        contents : sequence of Content
            Elements that were recorded before.
        own_size : tuple of int
            Nodes and external rows before theirs.
        """
        graph = result.graph
        sources = np.full(len(graph.external_row), _NOBODY)
        values = graph.operand_value[: len(operands)]
        outside = values <= FIRST_EXTERNAL
        sources[FIRST_EXTERNAL - values[outside]] = operands[outside]
        externals = self._externals(sources)
        detached = self.detached_nodes(graph, first, ids)
        node, external = own_size
        for content in contents:
            for row, one in content.externals().items():
                sources[external + row] = _OF_CONTENT - len(externals)
                externals[_OF_CONTENT - len(externals)] = one
            own = content.detached()
            if own is not None:
                detached = np.zeros(graph.num_nodes, bool) if detached is None else detached
                detached[node : node + len(own)] = own
            node += content.size[0]
            external += content.size[1]
        result.detached = detached
        made = CompiledRound(self, result, self._library.trained_weights(), first, ids, sources, externals)
        with switched_to(self._library.state):
            made.run(self.token)
        self.token = made.token if made.token is not None else self.token
        self.rounds.append(made)
        return made

    def _externals(self, sources: np.ndarray) -> dict[int, External]:
        """What requires a gradient among tensors from outside and values that the model's own code has computed.

        These are tensors from outside to a round that compiled cells compute, and named so in `sources`.
        """
        found = {}
        for number in sources[sources > _NOBODY].tolist():
            if number < 0:
                if number in self.externals:
                    found[number] = self.externals[number]
                continue
            one = self._round_of(number)
            if isinstance(one, EagerRound):
                tensor = one.made[number - one.first]
                sources[sources == number] = _OF_EAGER - number if tensor.requires_grad else _NOBODY
                if tensor.requires_grad:
                    found[_OF_EAGER - number] = External(tensor)
        return found

    def externals_of(self, graph: InstanceGraph, operands: np.ndarray) -> dict[int, External]:
        """The tensors from outside that a graph reads and that require a gradient, by external row."""
        outside = graph.operand_value <= FIRST_EXTERNAL
        pairs = zip((FIRST_EXTERNAL - graph.operand_value[outside]).tolist(), operands[outside].tolist(), strict=True)
        return {row: self.externals[number] for row, number in pairs if number in self.externals}

    def require_parameters(self) -> None:
        """Check that what requires a gradient are parameters and rows of them, whose gradients are known later.

        Raises
        ------
        RecordingError
        """
        if not all(one.tensor.is_leaf for one in self.externals.values()):
            raise RecordingError(
                "forward computes with parameters outside of cells: a record would not when they change",
                "parameters in cells, and rows of parameters",
                "list what computes with them as a cell, or give the element itself",
            )

    def computed_eagerly(self, first: int, made: list[Tensor]) -> None:
        """A round was computed by the model's own code."""
        self.rounds.append(EagerRound(first, made))

    def _round_of(self, value: int) -> CompiledRound | EagerRound:
        return next(one for one in reversed(self.rounds) if one.first <= value)

    def add(self, values: np.ndarray, rows: np.ndarray) -> None:
        """Add gradients of the recorder's values, of one size."""
        if not len(values):
            return
        firsts = np.array([one.first for one in self.rounds])
        owners = np.searchsorted(firsts, values, side="right") - 1
        for owner in np.unique(owners).tolist():
            one, members = self.rounds[owner], np.flatnonzero(owners == owner)
            if isinstance(one, CompiledRound):
                one.add(one.ids[values[members] - one.first], rows[members])

    # Values that leave the graph --------------------------------------------------------------------------------

    def tensors(self, values: Sequence[int], rows: Tensor, spec: TensorSpec) -> list[Tensor]:
        """Values as tensors that autograd knows; `rows` has their numbers.

        Parameters
        ----------
        values : sequence of int
            The recorder's, computed or from outside, of one spec.
        rows : float32 tensor of shape ``[values, spec.size]``
        spec : TensorSpec
        """
        found: list[Tensor] = list(spec.decoded(rows).reshape(len(values), *spec.shape).unbind())
        if spec.dtype is not torch.float32:
            return [one.clone() for one in found]
        members: dict[int, list[int]] = {}
        for place, value in enumerate(values):
            if value < 0:
                found[place] = self._external(value, found[place], spec)
                continue
            if self.is_detached(value):
                found[place] = found[place].clone()
                continue
            owner = self._round_of(value)
            if isinstance(owner, EagerRound):
                found[place] = owner.made[value - owner.first].reshape(spec.shape)
            else:
                members.setdefault(id(owner), []).append(place)
        with switched_to(self._library.state):
            for own in self.rounds:
                places = members.get(id(own), [])
                if places and isinstance(own, CompiledRound):
                    numbers = own.ids[np.array([values[place] for place in places], np.int64) - own.first]
                    shaped = rows[places].reshape(len(places), *spec.shape)
                    for place, tensor in zip(places, own.tensors(numbers, shaped), strict=True):
                        found[place] = tensor
        return found

    def _external(self, number: int, numbers: Tensor, spec: TensorSpec) -> Tensor:
        external = self.externals.get(number)
        if external is None:
            return numbers.clone()
        with switched_to(self._library.state):
            tensor = external.tensor if external.row is None else external.tensor[external.row]
            return tensor.reshape(spec.shape).clone()


def _cotangents(result: TrainingResult, pending: dict[int, tuple[np.ndarray, np.ndarray]]) -> Cotangents:
    graph = result.graph
    signature = graph.signature
    assert signature is not None
    values = np.concatenate([one for one, _ in pending.values()])
    rows_by_arena: dict[int, np.ndarray] = {}
    for own, rows in pending.values():
        arenas = signature.output_arena[graph.node_type[own // graph.stride], own % graph.stride]
        for arena in np.unique(arenas).tolist():
            chosen = rows[arenas == arena]
            rows_by_arena[arena] = chosen.reshape(len(chosen), *signature.value_specs[arena].shape)
    return Cotangents(np.sort(values), rows_by_arena)


def gradient_of_weight(gradients: Gradients, name: str, weight: Tensor, tables: Mapping[int, Table]) -> Tensor:
    """The gradient of a parameter as PyTorch has it: sparse for some tables, without rows that stand for padding."""
    table = tables.get(id(weight))
    if table is None:
        return torch.from_numpy(gradients[name]).reshape(weight.shape)
    read = gradients.read_rows(name)
    if table.sparse and read is not None:
        index, rows = gradients.rows(name)
        kept = index != table.padding
        places, parts = torch.from_numpy(index[kept])[None], torch.from_numpy(rows[kept])
        with torch.sparse.check_sparse_tensor_invariants(False):
            return torch.sparse_coo_tensor(places, parts, weight.shape, is_coalesced=True)
    dense = torch.from_numpy(gradients[name]).reshape(weight.shape)
    if read is not None:
        index, rows = read
        for place in np.flatnonzero(index == table.padding).tolist():
            dense = dense.clone()
            dense[table.padding] -= torch.from_numpy(rows[place])
    return dense


def _require_first_order() -> None:
    if torch.is_grad_enabled():
        raise RecordingError(
            "gradients of gradients (create_graph=True) through a batched model",
            "first derivatives",
            "run the model itself for these",
        )


class _Round(torch.autograd.Function):
    """A round; what it returns stands for it."""

    @staticmethod
    def forward(ctx: Any, one: CompiledRound, changeable: int, before: Tensor | None, *inputs: Tensor) -> Tensor:
        ctx.round = one
        ctx.before = None if before is None else torch.zeros(())
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:changeable])  # autograd finds out when they are changed before backward
        return torch.zeros(())

    @staticmethod
    def backward(ctx: Any, _gradient: Tensor | None) -> Any:
        _require_first_order()
        _ = ctx.saved_tensors  # an error for a second backward pass, and for weights that were changed
        return None, None, ctx.before, *ctx.round.backward()


class _Values(torch.autograd.Function):
    """Values of a round as tensors."""

    @staticmethod
    def forward(ctx: Any, one: CompiledRound, values: np.ndarray, made: list[Tensor], _round: Tensor) -> Any:
        ctx.round, ctx.values = one, values
        ctx.set_materialize_grads(False)
        return tuple(made)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        _require_first_order()
        given = [(place, one) for place, one in enumerate(gradients) if one is not None]
        if given:
            rows = torch.stack([one.detach().to_dense().reshape(-1) for _, one in given]).numpy()
            ctx.round.add(ctx.values[[place for place, _ in given]], rows)
        return None, None, None, torch.zeros(())
