"""Rounds as nodes of autograd's graph; see :mod:`edbatch_tvm.recording.gradient_tape`."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from edbatch_tvm.errors import RecordingError
from edbatch_tvm.recording.parameter_tables import gradient_of_weight
from edbatch_tvm.recording.reads import NumberedReads
from edbatch_tvm.training.cotangents import Cotangents
from edbatch_tvm.training.graph_rows import arenas_of
from edbatch_tvm.training.weight_sums import sum_rows

if TYPE_CHECKING:
    from edbatch_tvm.recording.library import Library
    from edbatch_tvm.training import TrainingResult

_task: Any = torch._C._current_graph_task_id
_layout = attrgetter("layout")
_keeps_graph: Any = torch._C._autograd._get_current_graph_task_keep_graph

Row = tuple[torch.nn.Parameter, int]
"""A row of a parameter."""

NOBODY = np.iinfo(np.int64).min
"""What an external row is that needs no gradient."""

ROW_OF = "_row_of"
"""Attribute of tensors that are rows of parameters: a :data:`Row`."""


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
        """Add the gradients of values of one size: int64 ``[m]`` and floats ``[m, size]``."""
        if _task() != self.task:  # what is left is of a backward pass that failed
            self.task, self.parts = _task(), []
        self.parts.append((values, rows))

    def take(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """All of them, by size: values, rising, and the sum of the gradients of each."""
        parts, self.parts = (self.parts if _task() == self.task else []), []
        if len(parts) == 1:
            return {parts[0][1].shape[1]: sum_rows(*parts[0])}
        by_size: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        for values, rows in parts:
            by_size.setdefault(rows.shape[1], []).append((values, rows))
        return {
            size: sum_rows(np.concatenate([one for one, _ in found]), np.concatenate([rows for _, rows in found]))
            for size, found in by_size.items()
        }


class EarlierRounds:
    """The rounds of a minibatch so far, for the backward passes of later ones; it does not keep them.

    An earlier round lives as long as a later one that gradients go on from: autograd's node of that holds its own.
    """

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._rounds: list[weakref.ref[RoundGradients] | None] = []

    def append(self, first: int, gradients: RoundGradients | None) -> None:
        """One more, whose values are numbered from `first`; None for one that autograd itself goes through."""
        self._firsts.append(first)
        self._rounds.append(None if gradients is None else weakref.ref(gradients))

    def add(self, values: np.ndarray, rows: np.ndarray) -> None:
        """Add gradients of the recorder's values, of one size."""
        if not len(values):
            return
        owners = np.searchsorted(np.array(self._firsts), values, side="right") - 1
        for owner in np.unique(owners).tolist():
            reference, members = self._rounds[owner], np.flatnonzero(owners == owner)
            one = None if reference is None else reference()
            if one is not None:
                one.add(one.ids[values[members] - self._firsts[owner]], rows[members])


class RoundGradients:
    """The gradients of a round that compiled cells have computed: what autograd's node of the round holds.

    Nothing here leads to that node, or to what leads there: the garbage collector does not see what autograd holds, so
    a circle would keep the values of the minibatch for ever.

    Parameters
    ----------
    library : Library
    earlier : EarlierRounds or None
        None for a round by itself, whose external rows are all read from parameters.
    result : TrainingResult
    weights : dict of str to Tensor
        The weights of the cells that require a gradient.
    ids : int array
        The value of the graph for each of the recorder's.
    sources : int64 array
        For each external row of the graph what it is to the recorder: the number of an earlier value or, negative, of a
        tensor from outside.
    externals : dict of int to External
        By these numbers.
    reads : NumberedReads
        What of the external rows is parameters and rows of them, for elements that were recorded before.

    Attributes
    ----------
    inputs : dict of int to Tensor
        What requires a gradient, by id: leaves first.
    leaves : int
        How many of these are leaves.
    """

    def __init__(
        self,
        library: Library,
        earlier: EarlierRounds | None,
        result: TrainingResult,
        weights: dict[str, Tensor],
        ids: np.ndarray,
        sources: np.ndarray,
        externals: dict[int, External],
        reads: NumberedReads,
    ) -> None:
        self._library = library
        self._earlier = earlier
        self._result: TrainingResult | None = result
        self._weights = weights
        self.ids = ids
        self._sources = sources
        self._externals = externals
        self._reads = reads
        self._pending = _Pending()
        self._seen = library.code.packed
        found = {id(weight): weight for weight in weights.values()}
        for tensor in (*(one.tensor for one in externals.values()), *(one.parameter for one in reads.ranges)):
            if tensor.requires_grad:
                found.setdefault(id(tensor), tensor)
        self.inputs = dict(sorted(found.items(), key=lambda item: not item[1].is_leaf))
        self.leaves = sum(one.is_leaf for one in found.values())

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
        if not result.is_current and self._library.code.has_again(self._seen):
            result.weights_are_back()
        result.external_numbers = self._reads.numbers if self._reads.ranges else None
        gradients = result.backward_of(_cotangents(result, pending), retain=True)
        found: dict[int, Tensor] = {}
        for name, weight in self._weights.items():
            if gradients.reaches(name):
                found[id(weight)] = gradient_of_weight(gradients, name, weight, self._library.tables)
        for one in gradients.external_sums.values():
            rows = one.rows.reshape(len(one.rows), -1)
            first = self._of_reads(one.numbers, rows, found)
            if first == len(rows):
                continue
            sources, rows = self._sources[one.numbers[first:] - self._reads.end], rows[first:]
            outside = (sources < 0) & (sources > NOBODY)
            later = sources >= 0
            self._of_externals(sources[outside], rows[outside], found)
            if self._earlier is not None:
                self._earlier.add(sources[later], rows[later])
        return [found.get(key) for key in self.inputs]

    def _of_reads(self, numbers: np.ndarray, rows: np.ndarray, found: dict[int, Tensor]) -> int:
        """Add gradients of parameters and of rows of them to those that were found; how many rows these are."""
        first = 0
        for one in self._reads.ranges:
            end = int(np.searchsorted(numbers, one.end))
            if end > first and one.parameter.requires_grad:
                own = rows[first:end]
                if one.whole:
                    _add(one.parameter, torch.from_numpy(own.copy()).reshape(one.parameter.shape), found)
                else:
                    _add_rows(one.parameter, numbers[first:end] - one.begin, own, found)
            first = end
        return first

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
            _add(tensor, torch.from_numpy(rows[place].copy()).reshape(tensor.shape), found)
        for tensor, index, places in of_rows.values():
            _add_rows(tensor, *sum_rows(np.array(index), rows[places]), found)


def _add(tensor: Tensor, gradient: Tensor, found: dict[int, Tensor]) -> None:
    """Add the gradient of a tensor to those that were found."""
    known = found.get(id(tensor))
    found[id(tensor)] = gradient if known is None else known + gradient


def _add_rows(parameter: Tensor, index: np.ndarray, rows: np.ndarray, found: dict[int, Tensor]) -> None:
    """Add the gradients of rows of a parameter, rising and each once, to those that were found."""
    known, rows = found.get(id(parameter)), rows.reshape(len(rows), *parameter.shape[1:])
    if known is None:
        total = torch.zeros_like(parameter)
        total.detach().numpy()[index] = rows
    else:
        total = known.to_dense()
        total.detach().numpy()[index] += rows
    found[id(parameter)] = total


class CompiledRound:
    """A round that compiled cells have computed, as long as the minibatch runs.

    Parameters
    ----------
    first : int
        The number of the recorder's first value of the round.
    gradients : RoundGradients
    before : Tensor or None
        Stands for the round before it.

    Attributes
    ----------
    token : Tensor or None
        Stands for the round in autograd's graph; None if nothing requires a gradient.
    """

    def __init__(self, first: int, gradients: RoundGradients, before: Tensor | None) -> None:
        self.first = first
        self.ids = gradients.ids
        self._gradients = gradients
        token = _Round.apply(gradients, before, *gradients.inputs.values())
        self.token = token if token.requires_grad else None

    def tensors(self, values: np.ndarray, rows: Tensor) -> Sequence[Tensor]:
        """Values of the graph, one a row of `rows`, as tensors that autograd knows."""
        made: Any = torch.unbind_copy(rows)  # each in memory of its own: results can be written into
        return made if self.token is None else _Values.apply(self._gradients, values, made, self.token)


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


def _cotangents(result: TrainingResult, pending: dict[int, tuple[np.ndarray, np.ndarray]]) -> Cotangents:
    signature = result.graph.signature
    assert signature is not None
    rows_by_arena: dict[int, np.ndarray] = {}
    if len(pending) == 1:
        [(values, rows)] = pending.values()
        arenas = arenas_of(result.graph, values)
        first = int(arenas[0])
        if (arenas == first).all():
            rows_by_arena[first] = rows.reshape(len(rows), *signature.value_specs[first].shape)
            return Cotangents(values.astype(np.int64, copy=False), rows_by_arena)
    values = np.concatenate([one for one, _ in pending.values()])
    for own, rows in pending.values():
        arenas = arenas_of(result.graph, own)
        for arena in np.unique(arenas).tolist():
            chosen = rows[arenas == arena]
            rows_by_arena[arena] = chosen.reshape(len(chosen), *signature.value_specs[arena].shape)
    return Cotangents(np.sort(values), rows_by_arena)


def _require_first_order() -> None:
    if torch.is_grad_enabled():
        raise RecordingError(
            "gradients of gradients (create_graph=True) through a batched model",
            "first derivatives",
            "run the model itself for these",
        )


def _numbers(rows: Tensor) -> np.ndarray:
    try:
        return rows.numpy()
    except RuntimeError:
        if not torch._C._functorch.is_legacy_batchedtensor(rows):
            raise
        raise RecordingError(
            "many gradients at once (is_grads_batched=True, vectorize=True) through a batched model",
            "one gradient for each result",
            "ask for them one after the other, with retain_graph=True",
        ) from None


class _Round(torch.autograd.Function):
    """A round; what it returns stands for it."""

    @staticmethod
    def forward(ctx: Any, one: RoundGradients, before: Tensor | None, *inputs: Tensor) -> Tensor:
        ctx.round = one
        ctx.before = None if before is None else torch.zeros(())
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[: one.leaves])  # autograd finds out when they are changed before backward
        return torch.zeros(())

    @staticmethod
    def backward(ctx: Any, _gradient: Tensor | None) -> Any:
        _require_first_order()
        _ = ctx.saved_tensors  # an error for a second backward pass, and for weights that were changed
        return None, ctx.before, *ctx.round.backward()


class _Values(torch.autograd.Function):
    """Values of a round as tensors."""

    @staticmethod
    def forward(ctx: Any, one: RoundGradients, values: np.ndarray, made: list[Tensor], _round: Tensor) -> Any:
        ctx.round, ctx.values = one, values
        ctx.set_materialize_grads(False)
        return tuple(made)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        _require_first_order()
        given = [one for one in gradients if one is not None]
        if given:
            if set(map(_layout, given)) != {torch.strided}:
                given = [one.to_dense() for one in given]
            rows = _numbers(torch.stack(given).reshape(len(given), -1))
            reached = len(given) == len(gradients) or [one is not None for one in gradients]
            ctx.round.add(ctx.values if reached is True else ctx.values[reached], rows)
        return None, None, None, torch.zeros(())


class Linked(torch.autograd.Function):
    """A tensor whose numbers do not depend on others that went into it."""

    @staticmethod
    def forward(ctx: Any, made: Tensor, *sources: Tensor) -> Tensor:
        """A copy of `made`."""
        ctx.like = [(one.shape, one.dtype) for one in sources]
        return made.clone(memory_format=torch.preserve_format)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """The gradient of `made`, and zeros."""
        return gradient, *(torch.zeros(shape, dtype=dtype) for shape, dtype in ctx.like)
