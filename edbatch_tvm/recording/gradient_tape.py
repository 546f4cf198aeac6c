"""Gradients of recorded values, as PyTorch's autograd sees them.

Every round is one node of autograd's graph. Its inputs are the weights of the cells, the tensors from outside that
require a gradient, and the round before it; a tensor that stands for the last input has no other purpose than the order
of the backward pass. What leaves the recorded graph, results and values that PyTorch goes on with, are nodes that read
a round. Their gradients, and those that a later round has for values of an earlier one, are collected in the earlier
round, which autograd runs when every node that reads it has run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from edbatch_tvm.errors import RecordingError
from edbatch_tvm.graph.instance import FIRST_EXTERNAL
from edbatch_tvm.recording.gradient_rounds import (
    NOBODY,
    ROW_OF,
    CompiledRound,
    EagerRound,
    EarlierRounds,
    External,
    Linked,
    RoundGradients,
    Row,
)
from edbatch_tvm.recording.isolation import switched_to
from edbatch_tvm.recording.reads import NumberedReads
from edbatch_tvm.recording.required_gradients import RequiredGradients
from edbatch_tvm.recording.specs import TensorSpec, spec_of

if TYPE_CHECKING:
    from edbatch_tvm.recording.lazy import Source
    from edbatch_tvm.recording.library import Library
    from edbatch_tvm.recording.outside import Outside
    from edbatch_tvm.recording.recorded_together import JoinedContents
    from edbatch_tvm.training import TrainingResult

_OF_EAGER = -(1 << 41)
"""What the value of number 0 is called, if the model's own code has computed it; the others follow, falling."""


class GradientTape:
    """What autograd has to know of one minibatch.

    Parameters
    ----------
    library : Library

    Attributes
    ----------
    library : Library
    externals : dict of int to External
        By the recorder's number.
    known_detached : dict of int to int
        What values are detached, by the values that they are of.
    required : RequiredGradients
        Says which values require a gradient.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self.externals: dict[int, External] = {}
        self.rounds: list[CompiledRound | EagerRound] = []
        self._earlier = EarlierRounds()
        self._rows: dict[tuple[int, int], tuple[int, int]] = {}
        self._whole: dict[int, tuple[Tensor, int, int]] = {}
        self.known_detached: dict[int, int] = {}
        self.token: Tensor | None = None
        self.required = RequiredGradients(library, self.externals)

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
        with switched_to(self.library.state):
            kept = tensor if tensor.is_leaf else tensor.clone()
        number = outside.new_number(kept)
        self._whole[id(tensor)] = tensor, version, number
        self.externals[number] = External(kept)
        return number

    def follow(self, number: int, parameter: Parameter, row: int | None) -> None:
        """The tensor from outside of this number gets the gradient of a row of a parameter, or of all of it."""
        self.externals[number] = External(parameter, row)

    # Rounds -----------------------------------------------------------------------------------------------------

    def computed(
        self,
        result: TrainingResult,
        first: int,
        ids: np.ndarray,
        operands: np.ndarray,
        joined: JoinedContents,
    ) -> CompiledRound:
        """A round was computed by compiled cells.

        Parameters
        ----------
        result : TrainingResult
            Of what was recorded, then of elements that were recorded before.
        first : int
            The number of the first value.
        ids : int array
            The value of the graph of each.
        operands : int64 array
            What the calls read, by the recorder's numbers.
        joined : JoinedContents
            These elements.
        """
        graph = result.graph
        sources = np.full(len(graph.external_row), NOBODY)
        values = graph.operand_value[: len(operands)]
        outside = values <= FIRST_EXTERNAL
        sources[FIRST_EXTERNAL - values[outside]] = operands[outside]
        externals = self._externals(sources)
        result.detached = joined.detached(self.required.detached_nodes(graph, first, ids), graph.num_nodes)
        weights = self.library.code.trained_weights()
        reads = NumberedReads.of(joined.trained, len(sources))
        given = weights, ids, sources, externals, reads
        gradients = RoundGradients(self.library, self._earlier, result, *given)
        with switched_to(self.library.state):
            made = CompiledRound(first, gradients, self.token)
        self.token = made.token if made.token is not None else self.token
        self.rounds.append(made)
        self._earlier.append(first, gradients)
        return made

    def _externals(self, sources: np.ndarray) -> dict[int, External]:
        """What requires a gradient among tensors from outside and values that the model's own code has computed.

        These are tensors from outside to a round that compiled cells compute, and named so in `sources`.
        """
        found: dict[int, External] = {}
        if not self.externals and all(isinstance(one, CompiledRound) for one in self.rounds):
            return found
        for number in sources[sources > NOBODY].tolist():
            if number < 0:
                if number in self.externals:
                    found[number] = self.externals[number]
                continue
            one = self._round_of(number)
            if isinstance(one, EagerRound):
                tensor = one.made[number - one.first]
                sources[sources == number] = _OF_EAGER - number if tensor.requires_grad else NOBODY
                if tensor.requires_grad:
                    found[_OF_EAGER - number] = External(tensor)
        return found

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
        self._earlier.append(first, None)

    def _round_of(self, value: int) -> CompiledRound | EagerRound:
        return next(one for one in reversed(self.rounds) if one.first <= value)

    # Values that leave the graph --------------------------------------------------------------------------------

    def tensors(self, values: Sequence[int], rows: Tensor, spec: TensorSpec) -> list[Tensor]:
        """Values as tensors that autograd knows; `rows` has their numbers.

        Parameters
        ----------
        values : sequence of int
            The recorder's, computed or from outside, of one spec.
        rows : tensor of shape ``[values, spec.size]``
            Of the graph's dtype.
        spec : TensorSpec
        """
        found: list[Tensor] = list(spec.decoded(rows).reshape(len(values), *spec.shape).unbind())
        if not spec.floats:
            return [one.clone() for one in found]
        members: dict[int, list[int]] = {}
        for place, value in enumerate(values):
            if value < 0:
                found[place] = self._external(value, found[place], spec)
                continue
            if value not in self.required:
                found[place] = found[place].clone()
                continue
            owner = self._round_of(value)
            if isinstance(owner, EagerRound):
                found[place] = owner.made[value - owner.first].reshape(spec.shape)
            else:
                members.setdefault(id(owner), []).append(place)
        with switched_to(self.library.state):
            for own in self.rounds:
                places = members.get(id(own), [])
                if places and isinstance(own, CompiledRound):
                    numbers = own.ids[np.array([values[place] for place in places], np.int64) - own.first]
                    shaped = rows[places].reshape(len(places), *spec.shape)
                    for place, tensor in zip(places, own.tensors(numbers, shaped), strict=True):
                        found[place] = tensor
            if self.required.of_none:
                for place, value in enumerate(values):
                    sources = self.required.of_none.get(value, ())
                    if value in self.required and (sources or not found[place].requires_grad):
                        found[place] = self.linked(found[place], sources or [torch.zeros((), requires_grad=True)])
        return found

    def linked(self, tensor: Tensor, sources: Sequence[Source]) -> Tensor:
        """A computed tensor that requires a gradient because of what went into it without being in it."""
        with switched_to(self.library.state):
            made: Tensor = Linked.apply(tensor, *(self._of_source(one, tensor.dtype) for one in sources))
        return made

    def _of_source(self, source: Source, dtype: torch.dtype) -> Tensor:
        """A source as autograd knows it; its numbers do not matter."""
        if isinstance(source, Tensor):
            return source
        value, size = source
        return self.tensors([value], torch.zeros(1, size, dtype=dtype), spec_of((size,), dtype))[0]

    def _external(self, number: int, numbers: Tensor, spec: TensorSpec) -> Tensor:
        external = self.externals.get(number)
        if external is None:
            return numbers.clone()
        with switched_to(self.library.state):
            tensor = external.tensor if external.row is None else external.tensor[external.row]
            return tensor.reshape(spec.shape).clone()
