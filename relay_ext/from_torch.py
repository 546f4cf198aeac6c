"""Cells from PyTorch modules, through ``torch.export`` and TVM's own importer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cache, partial, wraps
from typing import Any

from tvm import relax

from edbatch_tvm.errors import CellError, EnvironmentMismatch
from relay_ext.core_program import failures_unprinted, in_core_operators
from relay_ext.exact_torch_decompositions import own_functions
from relay_ext.export_contexts import own_attributes, quiet, symbolic_len, symbolic_tensors
from relay_ext.few_rows import differs_for_few
from relay_ext.importer import ImportedCells, ImportedProgram, WeightNames, cell_with_weights, imported_module
from relay_ext.module_structure import module_structure
from relay_ext.row_counts import counts_as_tensors
from relay_ext.torch_conversions import CONVERSIONS
from relay_ext.torch_indexing import CONSTANT, INPUT
from relay_ext.torch_products import narrowing_call
from relay_ext.traced_program import traced_program


class RandomCellError(CellError):
    """A cell that draws random numbers."""


def cells_from_torch(
    modules: Mapping[str, Any],
    example_inputs: Mapping[str, Sequence[Any]],
    variadic: Mapping[str, Sequence[str]] | None = None,
) -> ImportedCells:
    """Make cells from ``torch.nn.Module`` objects, for :func:`edbatch_tvm.compile`.

    Parameters
    ----------
    modules : mapping of str to torch.nn.Module
        One module per cell. Its ``forward`` is written for one instance and computes tensors from tensors.
    example_inputs : mapping of str to sequence
        For each cell the arguments of ``forward``, as examples of their shapes and dtypes: floating-point tensors
        become operands, integer tensors and Python integers attributes; anything else is fixed. Tuples of tensors
        are operands one by one.
    variadic : mapping of str to sequence of str, optional
        For each cell the parameters of ``forward`` that are variadic operands: their examples have shape ``[k, ...]``
        with any k of at least 2, and the cell takes any number of rows.

    Returns
    -------
    ImportedCells
        The module and its weights, which share memory with the PyTorch modules: ``eb.compile(*cells)``. A tensor used
        by several cells is one weight, called by the first of them (``leaf.embedding.weight``).

    Raises
    ------
    CellError
        Naming the cell and what in it cannot be exported or imported: an operator, a branch on a value, random numbers,
        floating-point numbers that are neither float32 nor float64; or if it does something else for no variadic row,
        or for one, than for several.
    EnvironmentMismatch
        If torch is not installed.

    Examples
    --------
    >>> cells = eb.cells_from_torch({"leaf": leaf}, {"leaf": (torch.tensor(3),)})           # doctest: +SKIP
    >>> model = eb.compile(*cells)                                                          # doctest: +SKIP
    """
    for what, given in (
        ("modules", modules),
        ("example inputs", example_inputs),
        ("variadic parameters", variadic or {}),
    ):
        if not isinstance(given, Mapping):
            raise CellError(f"{what} in a {type(given).__name__}", "a mapping by name of cell")
        unnamed = [name for name in given if not isinstance(name, str)]
        if unnamed:
            raise CellError(f"a cell called {unnamed[0]!r} among the {what}", "names that are texts")
    missing = [name for name in modules if name not in example_inputs]
    if missing:
        raise CellError(f"no example inputs for the cells {missing}", "arguments of forward for each cell")
    names = WeightNames()
    functions = {
        name: import_cell(name, module, example_inputs[name], (variadic or {}).get(name, ()), names)
        for name, module in modules.items()
    }
    return imported_module(functions, names)


def import_cell(
    name: str, module: Any, arguments: Sequence[Any], variadic: Sequence[str], names: WeightNames
) -> relax.Function:
    """One cell out of a ``torch.nn.Module``; see :func:`cells_from_torch`.

    `names` is extended by the weights of the cell.
    """
    torch = require_torch()
    if not isinstance(module, torch.nn.Module):
        raise CellError(f"cell {name!r} is a {type(module).__name__}", "a torch.nn.Module")
    if not isinstance(arguments, Sequence) or isinstance(arguments, str):
        raise CellError(f"example inputs of cell {name!r} in a {type(arguments).__name__}", "a tuple or list of them")
    _require_known_floats(torch, name, module, tuple(arguments))
    shapes = _dynamic_shapes(name, module, tuple(arguments), tuple(variadic))
    specs = torch.utils._pytree.tree_map(partial(_fixed_part, torch), tuple(arguments))
    structure = module_structure(torch, module, specs, tuple(variadic))
    if structure not in names.programs:
        program = export_program(name, module, tuple(arguments), shapes)
        if shapes is not None:
            _check_few_rows(torch, name, module, program, tuple(arguments), shapes)
        names.programs[structure] = import_program(name, program)
    return cell_of_program(name, module, names.programs[structure], names)


def _require_known_floats(torch: Any, name: str, module: Any, arguments: tuple[Any, ...]) -> None:
    """Refuse numbers of other dtypes than float32 and float64: nothing computes in them as PyTorch does."""
    tensors = [
        *((f"parameter {path!r}", tensor) for path, tensor in module.named_parameters()),
        *((f"buffer {path!r}", tensor) for path, tensor in module.named_buffers()),
        *(("an example input", leaf) for leaf in torch.utils._pytree.tree_leaves(arguments)),
    ]
    for what, tensor in tensors:
        if not isinstance(tensor, torch.Tensor):
            continue
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype not in (torch.float32, torch.float64):
            expected = "torch.float32 or torch.float64"
            raise CellError(f"{what} of cell {name!r} is {tensor.dtype}", expected, "call .float() on it first")


def _fixed_part(torch: Any, argument: Any) -> Any:
    """What of an argument of ``forward`` a program depends on."""
    if isinstance(argument, torch.Tensor):
        return argument.dtype, argument.shape
    return int if type(argument) is int else argument


def require_torch() -> Any:
    """The module torch.

    Raises
    ------
    EnvironmentMismatch
        If it is not installed.
    """
    try:
        import torch
    except ImportError:
        raise EnvironmentMismatch("torch is not installed", "torch 2.4 or later", "pip install torch") from None
    return torch


# Export ---------------------------------------------------------------------------------------------------------


def export_program(name: str, module: Any, arguments: tuple[Any, ...], shapes: Any = None) -> Any:
    """The exported program of `module`, in core operators.

    Parameters
    ----------
    name : str
        What the cell is called in errors.
    module : torch.nn.Module
    arguments : tuple
        Examples of the arguments of ``forward``; integers count as integer tensors.
    shapes : optional
        What ``torch.export`` is told about dimensions; None if all are static.

    Raises
    ------
    CellError
        If the module cannot be exported.
    """
    torch = require_torch()
    tree = torch.utils._pytree
    given = _as_tensors(torch, arguments)
    # Export takes one tensor given twice for one input.
    given = tree.tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf, given)
    try:
        with torch.no_grad(), quiet(), own_functions(torch), own_attributes(module):
            program = _exported(torch, module, given, shapes)
            counts_as_tensors(torch, program)
    except Exception as error:
        raise CellError(
            f"cell {name!r} cannot be exported ({first_line(error)})",
            "straight-line tensor code, the same for every instance",
            "leave branches on values, loops over data and .item() to the code that calls the cell",
        ) from error
    _check_deterministic(name, program)
    _check_reads_of_rows(torch, name, program)
    return program


def _check_few_rows(
    torch: Any, name: str, module: Any, program: Any, arguments: tuple[Any, ...], shapes: tuple[Any, ...]
) -> None:
    def traced(few: tuple[Any, ...]) -> Any:
        try:
            return export_program(name, module, few)
        except CellError:
            return None

    with quiet(), symbolic_tensors(torch), own_attributes(module):
        count = differs_for_few(torch, module, program, _as_tensors(torch, arguments), shapes, traced)
    if count is not None:
        raise CellError(
            f"cell {name!r} does something else for {'one row' if count else 'no rows'} than for several",
            "the same operators for any number of rows",
            "make it a cell of its own, and choose between the two where instances are built",
        )


def _as_tensors(torch: Any, arguments: tuple[Any, ...]) -> Any:
    """Arguments with tensors in the place of integers."""
    return torch.utils._pytree.tree_map(lambda leaf: torch.tensor(leaf) if type(leaf) is int else leaf, arguments)


def _exported(torch: Any, module: Any, given: tuple[Any, ...], shapes: Any) -> Any:
    """The program of `module`: traced in one pass, or by ``torch.export`` where that is not possible."""
    outer = _inside(torch, module)
    with symbolic_tensors(torch), symbolic_len(torch) if shapes is not None else nullcontext():
        program = traced_program(torch, outer, given, shapes)
        if program is not None:
            return program
        with failures_unprinted():
            program = torch.export.export(outer, given, dynamic_shapes=shapes, strict=False)
    return in_core_operators(program)


_INSIDE = "module."
"""Begins the paths of parameters in exported programs."""


def _inside(torch: Any, module: Any) -> Any:
    """A module that has `module` as its only part.

    The graph of an exported program has attributes of its own (``code``, ``graph``, ``meta``), which parts of that name
    would hide.
    """
    outer = torch.nn.Module()
    outer.module = module
    outer.training = module.training

    @wraps(module.forward)  # the signature names the inputs of the program
    def forward(*arguments: Any) -> Any:
        return module(*arguments)

    outer.forward = forward
    return outer


@cache
def rows_dimension() -> Any:
    """The dimension of variadic operands, one and the same for all of them."""
    return require_torch().export.Dim("k")


def _dynamic_shapes(name: str, module: Any, arguments: tuple[Any, ...], variadic: tuple[str, ...]) -> Any:
    """What ``torch.export`` is told about dimensions; None if all are static."""
    if not variadic:
        return None
    torch = require_torch()
    tree = torch.utils._pytree
    parameters = list(inspect.signature(module.forward).parameters)
    unknown = [wanted for wanted in variadic if wanted not in parameters]
    if unknown:
        raise CellError(f"variadic parameters {unknown} of cell {name!r}", f"among {parameters}")
    shapes = []
    for parameter, argument in zip(parameters, arguments, strict=False):
        rows = [leaf for leaf in tree.tree_leaves(argument) if isinstance(leaf, torch.Tensor)]
        if parameter in variadic and any(leaf.ndim == 0 or len(leaf) < 2 for leaf in rows):
            raise CellError(
                f"the example for {parameter!r} of cell {name!r} has shape {tuple(rows[0].shape)}",
                "[k, ...] with k of 2 or more, for a variadic operand",
            )
        spec = {0: rows_dimension()} if parameter in variadic else None
        shapes.append(tree.tree_map(lambda leaf, spec=spec: spec if isinstance(leaf, torch.Tensor) else None, argument))
    return tuple(shapes)


def _check_deterministic(name: str, program: Any) -> None:
    torch = require_torch()
    for node in program.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise RandomCellError(
                f"cell {name!r} draws random numbers ({str(node.target).split('.')[1]})",
                "a cell that is the same in every call",
                "call .eval() on the model first",
            )


def _check_reads_of_rows(torch: Any, name: str, program: Any) -> None:
    """Refuse ``rows[0]``: whether variadic rows have one is not known before they are given."""
    for node in program.graph.find_nodes(op="call_function", target=torch.ops.aten.select.int):
        source, axis = node.args[0].meta["val"], node.args[1]
        if isinstance(source.shape[axis], torch.SymInt):
            raise CellError(
                f"cell {name!r} reads row {node.args[2]} of variadic rows",
                "reductions over rows and operators on all of them",
                "give that row as an operand of its own",
            )


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


# Import ---------------------------------------------------------------------------------------------------------


def import_program(name: str, program: Any) -> ImportedProgram:
    """An exported program as a Relax function, with its weights as parameters behind the inputs.

    Raises
    ------
    CellError
        If an operator of the program is not known to TVM's importer.
    """
    from tvm.relax.frontend.torch import from_exported_program

    _mark(program)
    try:
        with quiet():
            imported = from_exported_program(
                program,
                keep_params_as_input=True,
                unwrap_unit_return_tuple=True,
                custom_convert_map=CONVERSIONS,
                run_ep_decomposition=False,
            )
    except Exception as error:
        raise CellError(
            f"cell {name!r} cannot be imported ({first_line(error)})",
            "operators that cells can have",
            "compute this part outside the cell, or with other operators",
        ) from error
    narrowing = narrowing_call(imported["main"])
    if narrowing:
        raise CellError(
            f"cell {name!r} computes {narrowing} of float64 in float32", "an operator that keeps float64", "use float32"
        )
    paths = program.graph_signature.inputs_to_parameters
    return ImportedProgram(imported["main"], {name: path.removeprefix(_INSIDE) for name, path in paths.items()})


def _mark(program: Any) -> None:
    """Say at the nodes of a graph which are inputs of the cell, and which are constants of integers."""
    signature = program.graph_signature
    constants = {spec.arg.name: program.constants.get(spec.target) for spec in signature.input_specs}
    for node in program.graph.find_nodes(op="placeholder"):
        constant = constants.get(node.name)
        if node.name in signature.user_inputs:
            node.meta[INPUT] = True
        elif constant is not None and not constant.is_floating_point() and constant.dtype.itemsize > 1:
            node.meta[CONSTANT] = constant.detach().numpy()


def cell_of_program(name: str, module: Any, program: ImportedProgram, names: WeightNames) -> relax.Function:
    """The cell `name` that `module` is, out of the program of a module of its structure.

    `names` is extended by the weights of the cell.
    """
    weights = {placeholder: module.get_parameter(path) for placeholder, path in program.paths.items()}
    return cell_with_weights(name, program.function, weights, program.paths, names)
