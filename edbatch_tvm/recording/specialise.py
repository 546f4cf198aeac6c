"""Cells out of calls: what is called is exported for the shapes of one call, checked, and imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree
from tvm import relax

from edbatch_tvm.errors import CellError, EdbatchError
from edbatch_tvm.recording.arguments import EXAMPLE_ROWS
from edbatch_tvm.recording.call_fast_paths import returned_of
from edbatch_tvm.recording.cell_module import CellModule, ShapedCode, distinct
from edbatch_tvm.recording.empty_results import EmptyResult, are_always_empty, as_new
from edbatch_tvm.recording.export_cache import answer_of, program_of
from edbatch_tvm.recording.failures import shapes_of
from edbatch_tvm.recording.row_wise import same_program, treats_rows_alike
from edbatch_tvm.recording.specs import RowsSpec, TensorSpec, rows_of, spec_of
from edbatch_tvm.runtime import Model
from relay_ext.check_cells import CheckCells
from relay_ext.from_torch import (
    cell_of_program,
    export_program,
    first_line,
    import_program,
    rows_dimension,
)
from relay_ext.importer import ImportedProgram, WeightNames, imported_module
from relay_ext.index_bounds import with_index_bounds
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
    returned : callable
        Makes what a call returns, given the recorder and the number of its first value.
    function : relax.Function
    code : CellModule
        The model's own code, on flat inputs.
    """

    name: str
    type_id: int
    outputs: tuple[TensorSpec, ...]
    returned: Callable[[Any, int], Any]
    function: relax.Function
    code: CellModule

    @property
    def made(self) -> tuple[int, tuple[TensorSpec, ...], Callable[[Any, int], Any]]:
        """What recording a call takes."""
        return self.type_id, self.outputs, self.returned

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
                rows = [next(rest) for _ in range(count)]
                flat.append(torch.stack(rows) if rows else torch.empty(0, entry.spec.size, dtype=entry.dtype))
            else:
                flat.append(next(rest))
        return [output.clone() for output in self.code(*flat)]


def make_cell(name: str, type_id: int, code: CellModule, names: WeightNames) -> Cell | EmptyResult:
    """The cell called `name` that computes what `code` does; what it returns, if that has no elements.

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
    tensors = distinct(leaves)
    if not tensors:
        raise CellError(f"cell {name!r} returns no tensor", "one tensor or more")
    if not all(leaf.numel() for leaf in tensors):
        tensors = _with_elements(name, code, flat, tensors)
    outputs = tuple(_output_spec(name, leaf, code) for leaf in tensors)
    numbers = {id(tensor): number for number, tensor in enumerate(tensors)}
    filled = [numbers.get(id(leaf)) for leaf in leaves]

    def returned(made: list[Any]) -> Any:
        given = zip(leaves, filled, strict=True)
        return pytree.tree_unflatten([as_new(leaf) if at is None else made[at] for leaf, at in given], structure)

    if not tensors:
        return EmptyResult(returned)
    same = code.structure()
    if same not in names.programs:
        names.programs[same] = program_of(name, same, lambda: _imported(name, code, flat, names))
    function = cell_of_program(name, code, names.programs[same], names)
    plain = filled == list(range(len(tensors)))
    kind = structure.type
    simple = kind in (tuple, list) and plain and len(structure.children()) == len(leaves)
    form = None if structure.is_leaf() else kind if simple else returned
    return Cell(name, type_id, outputs, returned_of(outputs, form), function, code)


def _with_elements(
    name: str, code: CellModule, flat: Sequence[Any], tensors: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Those of the tensors that the code returns which have elements; the code returns no others from now on."""
    kept = [place for place, leaf in enumerate(tensors) if leaf.numel()]
    empty = [place for place, leaf in enumerate(tensors) if not leaf.numel()]
    if not answer_of("is empty", code.structure(), lambda: are_always_empty(cell_program(name, code, flat), empty)):
        raise CellError(f"cell {name!r} returns a tensor that may have no elements", "a shape that is fixed")
    code.with_elements, code.program = kept, None
    return [tensors[place] for place in kept]


def _imported(name: str, code: CellModule, flat: Sequence[Any], names: WeightNames) -> ImportedProgram:
    """The program of a cell that was never met before, checked."""
    program = cell_program(name, code, flat)
    _check_program(name, code, program)
    imported = import_program(name, program)
    _check_lowering(name, cell_of_program(name, code, imported, names), names)
    return imported


def cell_program(name: str, code: CellModule, flat: Sequence[Any]) -> Any:
    """The exported program of a cell; kept for other questions about it until the cell is compiled."""
    if code.program is None:
        shapes = tuple({0: rows_dimension()} if entry.rows else None for entry in code.plan.inputs)
        code.program = export_program(name, code, tuple(flat), (shapes,) if code.plan.is_variadic else None)
    return code.program


def holds_for_few(name: str, code: CellModule, rows: int) -> bool:
    """Whether the program of a variadic cell is the one for none or one row."""
    inputs = code.plan.inputs

    def compared() -> bool:
        few = [entry.random(rows) for entry in inputs]
        with torch.no_grad():
            _result(name, code, few)  # may be an error: the maximum of no rows
        dynamic = cell_program(name, code, [entry.random(EXAMPLE_ROWS) for entry in inputs])
        static = export_program(name, code, tuple(few), None)
        return same_program(dynamic, static, rows)

    return answer_of(f"holds for {rows} rows", code.structure(), compared)


def takes_rows(name: str, code: CellModule) -> tuple[tuple[RowsSpec, ...], Any] | None:
    """Whether the code treats the rows of its variadic inputs alike.

    Returns
    -------
    rows : tuple of RowsSpec
        What it returns for any number of rows.
    structure : TreeSpec
        Of what it returns.
    """
    shaped = ShapedCode(code)
    inputs = code.plan.inputs

    def example(rows: int) -> tuple[Any, ...]:
        return tuple(entry.shaped(entry.random(rows)) for entry in inputs)

    def returned(rows: int) -> tuple[list[torch.Tensor], Any]:
        return pytree.tree_flatten(code.result(as_given(code, list(example(rows))), as_they_are=True))

    def proved() -> bool:
        shapes = tuple({entry.at: rows_dimension()} if entry.rows else None for entry in inputs)
        dynamic = export_program(name, shaped, example(EXAMPLE_ROWS), (shapes,))
        static = export_program(name, shaped, example(1))
        return treats_rows_alike(dynamic) and same_program(dynamic, static, 1)

    try:
        with torch.no_grad():
            leaves, structure = returned(1)
            if len(distinct(leaves)) != len(leaves) or not all(leaf.numel() for leaf in leaves):
                return None
            several, same = returned(EXAMPLE_ROWS)
        rows = [_rows_in(one, other) for one, other in zip(leaves, several, strict=True)] if same == structure else []
        if not rows or None in rows or not answer_of("treats rows alike", code.structure(), proved):
            return None
    except CellError:
        return None
    except Exception as error:  # what the model's own code raises on one row
        if isinstance(error, EdbatchError):
            raise
        return None
    return tuple(row for row in rows if row is not None), structure


def _rows_in(one: torch.Tensor, several: torch.Tensor) -> RowsSpec | None:
    """The rows of an output, seen from that of a call of one row and that of a call of several."""
    differ = [at for at, (extent, other) in enumerate(zip(one.shape, several.shape, strict=False)) if extent != other]
    if one.dim() != several.dim() or one.dtype is not several.dtype or len(differ) != 1:
        return None
    at = differ[0]
    if one.shape[: at + 1].numel() != 1 or several.shape[at] != EXAMPLE_ROWS:
        return None
    return rows_of(spec_of((*one.shape[:at], *one.shape[at + 1 :]), one.dtype), at)


def _result(name: str, code: CellModule, flat: list[Any]) -> Any:
    try:
        return code.result(as_given(code, flat))
    except Exception as error:
        raise CellError(f"cell {name!r} fails on {shapes_of(code.plan)} ({first_line(error)})") from error


def as_given(code: CellModule, flat: list[Any]) -> list[Any]:
    """Flat inputs as the model's code gets them: Python integers where it was given some."""
    pairs = zip(code.plan.inputs, flat, strict=True)
    return [entry.example if type(entry.example) is int else value for entry, value in pairs]


def _output_spec(name: str, output: torch.Tensor, code: CellModule) -> TensorSpec:
    # Indices of elements, and how many there are, are small: floats have them all. Other whole numbers it has not.
    name_of = getattr(code.function, "__name__", "")
    counts = name_of in ("sum", "sum.default", "sum.dim_IntList")
    counts = counts and all(entry.spec.dtype is torch.bool for entry in code.plan.inputs)
    indices = code.owner is None and (counts or name_of in _INDICES)
    if output.dtype not in (code.plan.dtype, torch.bool) and not (indices and output.dtype is torch.int64):
        raise CellError(
            f"cell {name!r} returns a tensor of {output.dtype}",
            f"tensors of {code.plan.dtype}, as the model's parameters",
            "return scores, and take argmax or compare outside the cell",
        )
    return spec_of(output.shape, output.dtype)


_INDICES = frozenset(["max.dim", "min.dim"])
"""Operators whose whole numbers are indices."""


def _check_program(name: str, code: CellModule, program: Any) -> None:
    """Compare the exported program with the code: export fixes what it takes for constant."""
    for rows in _TRIED_ROWS if code.plan.is_variadic else _TRIED_ROWS[:1]:
        flat = [entry.random(rows) for entry in code.plan.inputs]
        with torch.no_grad():
            wanted = code(*as_given(code, flat))
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
        wanted = cell.code(*as_given(cell.code, flat))
    if not _close([torch.from_numpy(array) for array in model([instance])[0]], wanted):
        raise CellError(f"cell {cell.name!r} computes something else once compiled", "what PyTorch computes", _REPORT)


def _close(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> bool:
    """Whether tensors agree up to rounding, relative to the largest value of each."""
    return all(
        one.shape == other.shape and (not other.numel() or _agree(one, other))
        for one, other in zip(found, wanted, strict=True)
    )


def _agree(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether NaN and infinities are in the same places, and other numbers close."""
    finite = other.isfinite()
    if not torch.equal(one[~finite].nan_to_num(nan=0.5), other[~finite].nan_to_num(nan=0.5)):
        return False
    one, other = one[finite], other[finite]
    return not other.numel() or bool((one - other).abs().max() <= _TOLERANCE * other.abs().max().clamp(min=1e-3))


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
