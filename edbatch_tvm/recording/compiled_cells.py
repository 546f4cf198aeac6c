"""The cells of one PyTorch model as a compiled model, with the weights that were packed for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from edbatch_tvm.compiler import compile_model
from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.recording.gradient_check import check_gradients
from edbatch_tvm.recording.parameter_tables import Table
from edbatch_tvm.recording.specialise import Cell, check_compiled
from edbatch_tvm.recording.specs import FLOATS
from edbatch_tvm.runtime import Model
from edbatch_tvm.training.model import TrainingModel
from relay_ext.importer import WeightNames, imported_module


def same_numbers(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors hold the same bits."""
    if one.shape != other.shape or one.dtype is not other.dtype or one.layout is not other.layout:
        return False
    if one.layout is not torch.strided:
        pairs = zip(_strided_parts(one.detach()), _strided_parts(other.detach()), strict=True)
        return all(same_numbers(*pair) for pair in pairs)
    if one.dtype in FLOATS:
        words = torch.int32 if one.dtype is torch.float32 else torch.int64
        one, other = one.detach().view(words), other.view(words)
    return torch.equal(one, other)


def _strided_parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that one of another layout consists of."""
    layout = tensor.layout
    if layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor.to_dense()]


def cells_of(model: Model) -> Signature:
    """The cells that recorded graphs are of."""
    return model.cells if isinstance(model, TrainingModel) else model.signature


class CompiledCells:
    """The compiled model of cells, as far as there is one.

    Parameters
    ----------
    cells : list of Cell
        All that have been met. It grows.
    names : WeightNames
    tables : mapping of int to Table
        As :meth:`~edbatch_tvm.recording.parameter_tables.Table.of` gives them.
    training : bool
        Whether the model has a backward pass.
    options : mapping
        For :func:`edbatch_tvm.compile`.

    Attributes
    ----------
    model : Model or None
        Of the cells that had been met when it was compiled.
    type_ids : array of int16
        The types of the compiled model by those of cells; -1 where a cell could not be compiled.
    packed : list of tuple of torch.Tensor
        The weights, and copies of what was packed of them last.
    """

    def __init__(
        self,
        cells: list[Cell],
        names: WeightNames,
        tables: Mapping[int, Table],
        training: bool,
        options: Mapping[str, Any],
    ) -> None:
        self.model: Model | None = None
        self.type_ids = np.empty(0, np.int16)
        self.packed: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._cells = cells
        self._names = names
        self._tables = tables
        self._training = training
        self._options = options
        self._compiled = 0
        self._params: dict[str, Any] = {}
        self._refused: set[int] = set()
        self._checked: set[int] = set()

    @property
    def refusals(self) -> int:
        """Number of cells that cannot be compiled."""
        return len(self._refused)

    @property
    def is_current(self) -> bool:
        """Whether every cell that has been met is compiled."""
        return self.model is not None and self._compiled == len(self._cells)

    def compile(self) -> list[tuple[Cell, Exception]]:
        """Compile all cells; those that cannot be compiled, and why. If there are some, the model is what it was."""
        new = self._cells[self._compiled :]
        if all(cell.type_id in self._refused for cell in self._cells):
            return []
        try:
            model, params = self._compile(new)
        except Exception:
            refused = [(cell, reason) for cell in new if (reason := self._reason_against(cell)) is not None]
            if not refused:
                raise
            self._refused |= {cell.type_id for cell, _ in refused}
            return refused
        self._params = params
        self.packed = [(weight, weight.detach().clone()) for weight in params.values()]
        self._compiled, self.model = len(self._cells), model
        return []

    def _compile(self, new: Sequence[Cell]) -> tuple[Model, dict[str, Any]]:
        good = [cell for cell in self._cells if cell.type_id not in self._refused]
        cells = imported_module({cell.name: cell.function for cell in good}, self._names)
        model = compile_model(*cells, training=self._training, **self._options)
        for cell in new:
            cell.code.program = None
            if cell.type_id not in self._refused:
                self._check(cell, model)
        self.type_ids = np.full(len(self._cells), -1, np.int16)
        # By name: a pass that writes a cell anew may put it behind the others.
        place = {name: number for number, name in enumerate(cells_of(model).names)}
        self.type_ids[[cell.type_id for cell in good]] = [place[cell.name] for cell in good]
        return model, cells.params

    def _reason_against(self, cell: Cell) -> Exception | None:
        """Why a cell cannot be compiled; None if it can."""
        try:
            cells = imported_module({cell.name: cell.function}, self._names)
            self._check(cell, compile_model(*cells, training=self._training, **self._options))
        except Exception as error:
            return error
        return None

    def _check(self, cell: Cell, model: Model) -> None:
        """Compare a cell of a compiled model with the model's own code, and its adjoint, once."""
        check_compiled(cell, model)
        if self._training and cell.type_id not in self._checked:
            check_gradients(cell, self._names, self._tables)
            self._checked.add(cell.type_id)

    def refresh(self) -> None:
        """Take over weights that have changed."""
        if self.model is not None:
            self.model.refresh()
            self.packed = [(weight, weight.detach().clone()) for weight, _ in self.packed]

    def has_again(self, packed: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
        """Whether weights are what was packed then; they are packed again if others were meanwhile."""
        if not all(same_numbers(weight, then) for weight, then in packed):
            return False
        if self.weights_changed():
            self.refresh()
        return True

    def trained_weights(self) -> dict[str, torch.Tensor]:
        """The weights that require a gradient, by their names in the compiled model."""
        return {name: weight for name, weight in self._params.items() if weight.requires_grad}

    def weights(self) -> set[int]:
        """The ids of the weights: whoever runs the model sees their numbers."""
        return {id(weight) for weight, _ in self.packed}

    def weights_changed(self) -> bool:
        """Whether a weight is not what was packed, whoever has changed it and how: counters do not see all of it."""
        return not all(same_numbers(weight, seen) for weight, seen in self.packed)
