"""What the importers of cells have in common: one module of cells and its weights by name."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import tvm
from tvm import IRModule, relax

from edbatch_tvm.errors import EdbatchError
from edbatch_tvm.tvm_compat import make_node
from relay_ext.check_cells import check_shapes
from relay_ext.drop_unit_dims import DropUnitDims
from relay_ext.renaming import module_of, renamed
from relay_ext.signature import input_params, weight_params
from relay_ext.wrap_tvm_errors import cell_error


class ImportedCells(NamedTuple):
    """Cells and their weights, for ``eb.compile(*cells)``.

    Attributes
    ----------
    module : IRModule
    params : dict
        The weights by parameter name: the framework's own objects, so that ``Model.refresh()`` sees updates.
    """

    module: IRModule
    params: dict[str, Any]


class ImportedProgram(NamedTuple):
    """What an importer made of one module, and of all of the same structure.

    Attributes
    ----------
    function : relax.Function
        As the importer leaves it.
    paths : dict
        The path of each weight in the module, by parameter name.
    """

    function: relax.Function
    paths: dict[str, str]


@dataclass
class WeightNames:
    """One name for one weight, whichever cells use it, so that they share it.

    A weight is called by the cell that was imported first and its path there, such as ``leaf.embedding.weight``; names
    can be given beforehand. `programs` are those imported so far, by what cells that share one have in common.
    """

    params: dict[str, Any] = field(default_factory=dict)
    programs: dict[Hashable, ImportedProgram] = field(default_factory=dict)
    _name_of: dict[int, str] = field(default_factory=dict)

    def add(self, name: str, weight: Any) -> str:
        """The name of `weight`, `name` if it has none yet."""
        known = self._name_of.setdefault(id(weight), name)
        self.params.setdefault(known, weight)
        return known


def cell_with_weights(
    cell: str, function: relax.Function, weights: Mapping[str, Any], paths: Mapping[str, str], names: WeightNames
) -> relax.Function:
    """`function` with its weights called by their common names, without those that its body does not read.

    Parameters
    ----------
    cell : str
        Name of the cell.
    function : relax.Function
        As the importer leaves it; ``num_input`` says where the weights begin.
    weights, paths : mapping
        Weight and its path in the framework's module, by parameter name.
    names : WeightNames
        Extended by the weights of this cell.
    """
    read = set(relax.analysis.free_vars(function.body))
    used = [param for param in weight_params(function) if param in read]
    kept = [*input_params(function), *used]
    attrs = make_node("ir.DictAttrs", num_input=len(input_params(function)))
    bare = relax.Function(kept, function.body, function.ret_ty, function.is_pure, attrs)
    common = {param.name: names.add(f"{cell}.{paths[param.name]}", weights[param.name]) for param in used}
    return renamed(bare, common)


def imported_module(functions: Mapping[str, relax.Function], names: WeightNames) -> ImportedCells:
    """The module of imported cells in the form that stage detection reads, and the weights they use.

    Raises
    ------
    CellError
        If a tensor of a cell has no elements, a shape that depends on values, or an unforeseen operator.
    """
    for name, function in functions.items():
        check_shapes(name, function)
    narrow = tvm.transform.Sequential([DropUnitDims()])
    try:
        module = narrow(module_of(functions))
    except EdbatchError:
        raise
    except Exception as error:
        raise cell_error(error, module_of(functions), narrow) from error
    used = {param.name for function in functions.values() for param in weight_params(function)}
    return ImportedCells(module, {name: weight for name, weight in names.params.items() if name in used})
