"""Cells out of calls: what is called is exported for the shapes of one call, checked, and imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree
from tvm import relax

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.arguments import EXAMPLE_ROWS, CallPlan
from edbatch_tvm.recording.specs import TensorSpec, spec_of
from edbatch_tvm.runtime import Model
from relay_ext.check_cells import CheckCells
from relay_ext.from_torch import export_program, import_program, rows_dimension, shared_cell
from relay_ext.imported_cells import WeightNames, imported_module
from relay_ext.index_bounds import with_index_bounds
from relay_ext.module_structure import module_structure
from relay_ext.pipeline import cell_passes, run_passes
from relay_ext.signature import signature_of

_TRIED_ROWS = (1, 2, 5)
"""Numbers of rows for which a variadic cell is compared with the model's own code."""

_REPORT = "leave the operator to code outside the cell, and report it: TVM imports it as something else"

_TOLERANCE = 1e-4
"""Largest difference of the exported program from the model's own code, relative to the largest value."""


@dataclass(frozen=True)
class Cell:
    """One cell of the recorded graph: a submodule, method or tensor function, for arguments of one kind.

    Attributes
    ----------
    name : str
    type_id : int
    outputs : tuple of TensorSpec
    single : bool
        Whether the call returns one tensor by itself.
    returned : callable
        Makes what the call returns out of its tensors.
    function : relax.Function
    code : CellModule
        The model's own code, on flat inputs.
    """

    name: str
    type_id: int
    outputs: tuple[TensorSpec, ...]
    single: bool
    returned: Callable[[list[Any]], Any]
    function: relax.Function
    code: CellModule

    @property
    def made(self) -> tuple[int, tuple[TensorSpec, ...], Callable[[list[Any]], Any] | None]:
        """What recording a call takes: the type, the outputs, and `returned` unless the call returns one tensor."""
        return self.type_id, self.outputs, None if self.single else self.returned

    @property
    def attributes(self) -> int:
        """Number of attributes of a call."""
        return sum(entry.example is not None for entry in self.code.plan.inputs)

    def evaluate(self, operands: list[torch.Tensor], attributes: Sequence[Any]) -> list[torch.Tensor]:
        """The outputs, flat, computed by the model's own code for one node."""
        rest = iter(operands)
        inputs = self.code.plan.inputs
        fixed = sum(entry.example is None and not entry.rows for entry in inputs)
        variadic = sum(entry.rows for entry in inputs)
        count = (len(operands) - fixed) // variadic if variadic else 0
        values = iter(attributes)
        flat: list[Any] = []
        for entry in inputs:
            if entry.example is not None:
                flat.append(entry.like_example(next(values)))
            elif entry.rows:
                flat.append(torch.stack([next(rest) for _ in range(count)]))
            else:
                flat.append(next(rest))
        return [output.clone() for output in self.code(*flat)]


class CellModule(torch.nn.Module):
    """Code of a model as a module whose inputs and outputs are flat tensors, for ``torch.export``.

    Parameters
    ----------
    function : callable
        A submodule, a bound method or a tensor function.
    owner : torch.nn.Module or None
        What the parameters that `function` uses belong to.
    plan : CallPlan
    named : tuple of str
        Names of the last arguments, if they are given by name.
    """

    def __init__(
        self, function: Callable[..., Any], owner: torch.nn.Module | None, plan: CallPlan, named: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.owner = owner
        self.taken = torch.nn.ParameterList(plan.weights)
        object.__setattr__(self, "function", function)
        self.plan = plan
        self.named = named
        self.training = owner.training if owner is not None else False

    def result(self, flat: Sequence[Any]) -> Any:
        """What the call returns, in its own structure."""
        arguments = self.plan.arguments(flat, list(self.taken))
        plain = len(arguments) - len(self.named)
        return self.function(*arguments[:plain], **dict(zip(self.named, arguments[plain:], strict=True)))

    def forward(self, *flat: Any) -> tuple[torch.Tensor, ...]:
        """The tensors that the call returns, flat."""
        leaves = pytree.tree_leaves(self.result(flat))
        return tuple(leaf.reshape(-1) for leaf in leaves if isinstance(leaf, torch.Tensor))


def make_cell(name: str, type_id: int, code: CellModule, names: WeightNames) -> Cell:
    """The cell called `name` that computes what `code` does.

    Raises
    ------
    CellError
        If the code cannot be exported, imported or batched for arguments of this kind, or the exported program does
        not compute what the code does.
    """
    inputs = code.plan.inputs
    flat = [entry.random(EXAMPLE_ROWS) for entry in inputs]
    with torch.no_grad():
        leaves, structure = pytree.tree_flatten(_result(name, code, flat))
    outputs = tuple(_output_spec(name, leaf) for leaf in leaves if isinstance(leaf, torch.Tensor))
    if not outputs:
        raise CellError(f"cell {name!r} returns no tensor", "one tensor or more")
    shapes = tuple({0: rows_dimension()} if entry.rows else None for entry in inputs)
    same = module_structure(torch, code)
    if same in names.programs:
        function = shared_cell(name, code, same, names)
    else:
        program = export_program(name, code, tuple(flat), (shapes,) if code.plan.is_variadic else None)
        _check_program(name, code, program)
        function = import_program(name, code, program, names, same)
        _check_lowering(name, function, names)

    def returned(tensors: list[Any]) -> Any:
        rest = iter(tensors)
        filled = [next(rest) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        return pytree.tree_unflatten(filled, structure)

    plain = all(isinstance(leaf, torch.Tensor) for leaf in leaves)
    kind = structure.type
    simple = kind in (tuple, list) and plain and len(structure.children()) == len(leaves)
    return Cell(name, type_id, outputs, structure.is_leaf(), kind if simple else returned, function, code)


def _result(name: str, code: CellModule, flat: list[Any]) -> Any:
    try:
        return code.result(_as_given(code, flat))
    except Exception as error:
        raise CellError(f"cell {name!r} fails on arguments of the shapes it is called with ({error})") from error


def _as_given(code: CellModule, flat: list[Any]) -> list[Any]:
    """Flat inputs as the model's code gets them: Python integers where it was given some."""
    pairs = zip(code.plan.inputs, flat, strict=True)
    return [entry.example if type(entry.example) is int else value for entry, value in pairs]


def _output_spec(name: str, output: torch.Tensor) -> TensorSpec:
    if output.dtype is not torch.float32:
        raise CellError(
            f"cell {name!r} returns a tensor of {output.dtype}",
            "float32 tensors",
            "return scores, and take argmax or compare outside the cell",
        )
    return spec_of(output.shape)


def _check_program(name: str, code: CellModule, program: Any) -> None:
    """Compare the exported program with the code: export fixes what it takes for constant."""
    for rows in _TRIED_ROWS if code.plan.is_variadic else _TRIED_ROWS[:1]:
        flat = [entry.random(rows) for entry in code.plan.inputs]
        with torch.no_grad():
            wanted = code(*_as_given(code, flat))
            found = _run_program(program, flat)
        if not _close(found, wanted):
            raise CellError(
                f"cell {name!r} computes something else once exported",
                "tensor code that depends on the shapes of its arguments alone",
            )


def check_compiled(cell: Cell, model: Model) -> None:
    """Compare a cell of `model` with the code it was made of.

    Raises
    ------
    CellError
        If an operator of it is imported or lowered to something else than PyTorch computes.
    """
    inputs = cell.code.plan.inputs
    flat = [entry.random(EXAMPLE_ROWS) for entry in inputs]
    operands = [value.numpy() for entry, value in zip(inputs, flat, strict=True) if entry.example is None]
    given = [value.numpy() for entry, value in zip(inputs, flat, strict=True) if entry.example is not None]
    names = [attribute.name for attribute in model.signature[cell.name].attributes]
    builder = model.builder()
    value = builder.call(cell.name, *operands, **dict(zip(names, given, strict=True)))
    instance = builder.finish(list(value) if isinstance(value, tuple) else [value])
    with torch.no_grad():
        wanted = cell.code(*_as_given(cell.code, flat))
    if not _close([torch.from_numpy(array) for array in model([instance])[0]], wanted):
        raise CellError(f"cell {cell.name!r} computes something else once compiled", "what PyTorch computes", _REPORT)


def _close(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> bool:
    """Whether tensors agree up to rounding, relative to the largest value of each."""
    return all(
        one.shape == other.shape
        and (not other.numel() or bool((one - other).abs().max() <= _TOLERANCE * other.abs().max().clamp(min=1e-3)))
        for one, other in zip(found, wanted, strict=True)
    )


def _run_program(program: Any, flat: list[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Run the graph of an exported program, without the conditions on shapes it was exported under."""
    rest = iter(flat)
    kinds = torch.export.graph_signature.InputKind
    inputs = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is kinds.USER_INPUT:
            inputs.append(next(rest))
        elif spec.target in program.state_dict:
            inputs.append(program.state_dict[spec.target])
        else:
            inputs.append(program.constants[spec.target])
    return torch.fx.Interpreter(program.graph_module).run(*inputs)


def _check_lowering(name: str, function: relax.Function, names: WeightNames) -> None:
    """Find out now, cell by cell, what compiling all cells would find."""
    module = imported_module({name: function}, names).module
    signature = signature_of(module)
    with_index_bounds(signature, run_passes(module, [CheckCells(), *cell_passes()[1:]]))
