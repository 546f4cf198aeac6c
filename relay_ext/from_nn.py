"""Cells from modules of ``tvm.relax.frontend.nn``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax
from tvm.relax.frontend import nn

from edbatch_tvm.argument_checks import require_type
from edbatch_tvm.errors import CellError
from relay_ext.importer import ImportedCells, WeightNames, cell_with_weights, imported_module
from relay_ext.signature import weight_params


def cells_from_nn(modules: Mapping[str, nn.Module], specs: Mapping[str, Mapping[str, Any]]) -> ImportedCells:
    """Make cells from ``tvm.relax.frontend.nn`` modules, for :func:`edbatch_tvm.compile`.

    Parameters
    ----------
    modules : mapping of str to nn.Module
        One module per cell; its ``forward`` is written for one instance.
    specs : mapping of str to mapping
        For each cell the arguments of ``forward`` as ``nn.spec.Tensor(shape, dtype)``; floating-point tensors become
        operands, integer tensors attributes, and a leading dimension that is a name (``("k", 64)``) makes an operand
        variadic.

    Returns
    -------
    ImportedCells
        The module, and those weights that are bound to data; give the others to ``eb.compile`` by name. A parameter
        used by several cells is one weight, called by the first of them (``leaf.linear.weight``).

    Raises
    ------
    CellError
        Naming the cell that has no spec or is no such module.
    """
    for given in (modules, specs):
        require_type(given, Mapping, "a mapping by name of cell", CellError)
    names = WeightNames()
    functions = {name: _import_cell(name, module, specs.get(name), names) for name, module in modules.items()}
    module, params = imported_module(functions, names)
    return ImportedCells(module, {name: param.data for name, param in params.items() if param.data is not None})


def _import_cell(name: str, module: Any, spec: Mapping[str, Any] | None, names: WeightNames) -> relax.Function:
    if not isinstance(module, nn.Module):
        raise CellError(f"cell {name!r} is a {type(module).__name__}", "a module of tvm.relax.frontend.nn")
    if spec is None:
        raise CellError(f"no spec for cell {name!r}", "the arguments of forward as nn.spec.Tensor")
    exported, parameters = module.export_tvm({"forward": dict(spec)})
    functions = {var.name_hint: function for var, function in exported.functions.items()}
    function = functions.pop("forward")
    if functions:
        raise CellError(
            f"cell {name!r} uses TIR functions ({', '.join(functions)})",
            "operators alone",
            "write the cell in TVMScript to use R.call_tir",
        )
    placeholders = [param.name for param in weight_params(function)]
    weights = {at: weight for at, (_, weight) in zip(placeholders, parameters, strict=True)}
    paths = {at: path for at, (path, _) in zip(placeholders, parameters, strict=True)}
    return cell_with_weights(name, function, weights, paths, names)
