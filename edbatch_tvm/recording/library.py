"""The cells of one PyTorch model that have been met so far, and the model they are compiled to."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from edbatch_tvm.compiler import compile_model
from edbatch_tvm.errors import CellError, RecordingError
from edbatch_tvm.recording.arguments import CallPlan, Key
from edbatch_tvm.recording.specialise import Cell, CellModule, check_compiled, make_cell
from edbatch_tvm.recording.torch_functions import original_functions
from edbatch_tvm.runtime import Model
from relay_ext.imported_cells import WeightNames, imported_module

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder

MOST_CELLS = 32
"""Cells that one submodule or method may become, for different shapes and constants."""


class Site:
    """What can be called while instances run: a submodule, a method or a tensor function.

    Attributes
    ----------
    name : str
    target : callable
    owner : torch.nn.Module or None
        What its parameters belong to.
    integers_vary : bool
        Whether Python integers among the arguments are attributes; else every integer makes a cell of its own.
    named : tuple of str
        Names of the last arguments, for a tensor function called with arguments by name.
    cells : dict of key to Cell
    steps : dict
        The same for calls as the recorder describes them: part after part of the key leads to another dict, and None
        in the last one to what recording the call takes, :attr:`Cell.made`.
    refused : dict of key to CellError
        Kinds of calls that cannot be a cell, and why.
    """

    def __init__(
        self,
        name: str,
        target: Callable[..., Any],
        owner: torch.nn.Module | None,
        integers_vary: bool = True,
        named: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.target = target
        self.owner = owner
        self.integers_vary = integers_vary
        self.named = named
        self.cells: dict[Key, Cell] = {}
        self.steps: dict[Any, Any] = {}
        self.refused: dict[Key, CellError] = {}
        self._signature: inspect.Signature | None = None

    def learn(self, key: Key, cell: Cell) -> None:
        """Let calls of `key` find their cell step by step."""
        step = self.steps
        for part in key:
            step = step.setdefault(part, {})
        step[None] = cell.made

    def positional(self, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arguments of a call in the order of the parameters."""
        if self._signature is None:
            target = self.target
            self._signature = inspect.signature(target.forward if isinstance(target, torch.nn.Module) else target)
        bound = self._signature.bind(*arguments, **named)
        bound.apply_defaults()
        if bound.kwargs:
            raise RecordingError(f"{self.name} has parameters that are given by name only", "positional parameters")
        return bound.args


class Library:
    """Cells by what was called and how, and the compiled model of all of them.

    Parameters
    ----------
    model : torch.nn.Module
    options : mapping
        For :func:`edbatch_tvm.compile`.
    """

    def __init__(self, model: torch.nn.Module, options: Mapping[str, Any]) -> None:
        self.cells: list[Cell] = []
        self._options = options
        self._names = WeightNames()
        for path, parameter in model.named_parameters():
            self._names.add(path, parameter)
        self._path_of = {id(parameter): path for path, parameter in model.named_parameters()}
        self._operators: dict[tuple[Any, tuple[str, ...]], Site] = {}
        self._compiled: tuple[int, Model] | None = None
        self._lock = threading.RLock()

    def path_of(self, tensor: torch.Tensor) -> str | None:
        """The path of a parameter of the model; None for any other tensor."""
        return self._path_of.get(id(tensor))

    def operator_site(self, function: Any, named: tuple[str, ...]) -> Site:
        """The site of a tensor function, called with arguments of these names at the end."""
        site = self._operators.get((function, named))
        if site is None:
            name = getattr(function, "__name__", "operator").strip("_")
            site = self._operators.setdefault((function, named), Site(name, function, None, False, named))
        return site

    def specialise(
        self, recorder: Recorder, site: Site, arguments: tuple[Any, ...]
    ) -> tuple[Cell, list[int], list[Any]]:
        """The cell for a call that none was made for yet, the values the call reads and its attributes.

        Tried in turn: any number of rows and any integer; rows one by one; every integer by itself; both.

        Raises
        ------
        CellError
            If none of them can be a cell: why the last one cannot.
        """
        refusal = None
        for integers_vary in (True, False) if site.integers_vary else (False,):
            for fixed_rows in (False, True):
                key, operands, attributes = recorder.described(arguments, integers_vary, fixed_rows)
                refusal = site.refused.get(key)
                if refusal is None:
                    try:
                        cell = self._cell(site, key, attributes)
                        if integers_vary == site.integers_vary and not fixed_rows:
                            site.learn(key, cell)
                        return cell, operands, attributes
                    except CellError as error:
                        refusal = site.refused[key] = error
        assert refusal is not None
        raise refusal

    def _cell(self, site: Site, key: Key, attributes: list[Any]) -> Cell:
        with self._lock:
            cell = site.cells.get(key)
            if cell is not None:
                return cell
            if len(site.cells) == MOST_CELLS:
                reason = next((f" ({refusal})" for refusal in site.refused.values()), "")
                raise RecordingError(
                    f"{site.name!r} has been called with more than {MOST_CELLS} kinds of arguments{reason}",
                    "few shapes and constants: each is compiled",
                    "pass numbers that differ from call to call as tensors, and stack what comes in any number",
                )
            plan = CallPlan.of(key, attributes, self._names.params)
            code = CellModule(site.target, site.owner, plan, site.named)
            with original_functions():
                cell = make_cell(self._free_name(site), len(self.cells), code, self._names)
            self.cells.append(cell)
            site.cells[key] = cell
            return cell

    def _free_name(self, site: Site) -> str:
        stem = site.name.replace(".", "_")
        taken = {cell.name for cell in self.cells}
        numbers = (f"{stem}_{number}" for number in range(2, len(taken) + 3))
        return next(name for name in (stem, *numbers) if name not in taken)

    # Compiled ---------------------------------------------------------------------------------------------------

    @property
    def is_compiled(self) -> bool:
        """Whether every cell that has been met is compiled."""
        return self._compiled is not None and self._compiled[0] == len(self.cells)

    @property
    def model(self) -> Model | None:
        """The compiled model, as far as there is one."""
        return None if self._compiled is None else self._compiled[1]

    def compiled(self) -> Model:
        """The compiled model of all cells; compiles if there are new ones."""
        with self._lock:
            if self._compiled is None or not self.is_compiled:
                known = 0 if self._compiled is None else self._compiled[0]
                with original_functions():
                    cells = imported_module({cell.name: cell.function for cell in self.cells}, self._names)
                    model = compile_model(*cells, **self._options)
                    for cell in self.cells[known:]:
                        check_compiled(cell, model)
                self._compiled = len(self.cells), model
            return self._compiled[1]

    def refresh(self) -> None:
        """Take over weights that have changed."""
        if self._compiled is not None:
            self._compiled[1].refresh()
