"""A cell of a module by itself: the module of it alone, and what tells it from other cells."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import IRModule

from edbatch_tvm.tvm_compat import structural_map, structural_walk
from relay_ext.share_cells import MEMBERS
from relay_ext.signature import weight_params
from relay_ext.structure_digest import structure_digest


def cell_module(mod: IRModule, name: str) -> IRModule:
    """The cell `name` and the functions that it calls; it stands for itself alone."""
    functions = _with_called(mod, name)
    (var, cell), *called = functions.items()
    return IRModule(dict([(var, cell.without_attr(MEMBERS)), *called]), attrs=mod.attrs)


def cell_content(mod: IRModule, name: str, names: bool = False) -> list[Any]:
    """Equal for cells of equal structure, shapes, dtypes and constants, in any module.

    Parameters
    ----------
    names : bool
        Whether the names of the cell, of its parameters and of its variables count.
    """
    functions = _with_called(mod, name)
    other = {var.name_hint: tvm.ir.GlobalVar(f"function{number}") for number, var in enumerate(functions)}

    def rename(var: Any) -> Any:
        return other.get(var.name_hint, var)

    plain = [
        structural_map(one.without_attr("global_symbol").without_attr(MEMBERS), (tvm.ir.GlobalVar, rename))
        for one in functions.values()
    ]
    weights = [param.name for param in weight_params(mod[name])]
    tied = list(map(weights.index, weights))
    return [structure_digest([*plain, mod.attrs], names), tied, name if names else ""]


def _with_called(mod: IRModule, name: str) -> dict[Any, Any]:
    """The function `name`, those that it calls, those that these call, and so on."""
    found = [mod.get_global_var(name)]
    for one in found:
        used: list[Any] = []
        structural_walk(mod[one], (tvm.ir.GlobalVar, used.append))
        known = {var.name_hint for var in found}
        found += [var for var in dict.fromkeys(used) if var.name_hint not in known and var in mod.functions]
    return {var: mod[var] for var in found}
