"""Pass: cells that differ only in names are compiled once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import IRModule, relax

from edbatch_tvm.tvm_compat import StructuralKey, structural_map, tirx
from relay_ext.signature import cell_functions, weight_params

MEMBERS = "edbatch.members"
"""Attribute of a cell, and of its kernels: the cells that it stands for, each as its name and those of its weights.

The cell itself comes first. Weights are in the order of the parameters. A cell that stands for itself alone has none.
"""


@tvm.transform.module_pass(opt_level=0, name="ShareCells")
class ShareCells:
    """Keep one of all cells that are equal up to the names of the cell, of its parameters and of its weights.

    Before::

        def forward(x, W_f): return R.tanh(R.matmul(x, W_f))
        def backward(y, W_b): return R.tanh(R.matmul(y, W_b))

    After::

        def forward(x, W_f):                    # "edbatch.members": [["forward", "W_f"], ["backward", "W_b"]]
            return R.tanh(R.matmul(x, W_f))

    Equal cells have equal shapes, dtypes and constants. The kernels of the one that is kept run the batches of all:
    they find their weights through a table with a row for each cell
    (:class:`relay_ext.join_model_kernels.JoinModelKernels`).
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        cells = cell_functions(mod)
        groups: dict[Any, list[str]] = {}
        for name, key in _keys(mod, cells).items():
            groups.setdefault(key, []).append(name)
        shared = {names[0]: names for names in groups.values()}
        functions: dict[Any, Any] = {}
        for var, function in mod.functions.items():
            if var.name_hint not in cells:
                functions[var] = function
            elif var.name_hint in shared:
                names = shared[var.name_hint]
                members = [[name, *(param.name for param in weight_params(cells[name]))] for name in names]
                functions[var] = function.with_attr(MEMBERS, members) if len(names) > 1 else function
        return IRModule(functions, attrs=mod.attrs)


def members_of(function: Any, cell: str) -> list[tuple[str, dict[str, str]]]:
    """The cells that `function` computes, each with its own names of the weights of `cell`, where they differ.

    Parameters
    ----------
    function : Function or PrimFunc
        The cell called `cell`, or a kernel of it.
    """
    if function.attrs is None or MEMBERS not in function.attrs:
        return [(cell, {})]
    members = [[str(name) for name in member] for member in function.attrs[MEMBERS]]
    weights = members[0][1:]
    return [(name, dict(zip(weights, own, strict=True))) for name, *own in members]


def member_attribute(function: Any) -> dict[str, Any]:
    """The attribute :data:`MEMBERS` of `function`, if it has one, for a function made from it."""
    has = function.attrs is not None and MEMBERS in function.attrs
    return {MEMBERS: function.attrs[MEMBERS]} if has else {}


def _keys(mod: IRModule, cells: Mapping[str, relax.Function]) -> dict[str, Any]:
    """What equal cells have in common, by cell. Equal TIR functions that cells call count as one.

    Beside the structure it says which weights of the cell have one name, that is, are one.
    """
    first: dict[Any, Any] = {}
    same: dict[Any, Any] = {}
    for var, function in mod.functions.items():
        if isinstance(function, tirx.PrimFunc):
            kept = first.setdefault(StructuralKey(_nameless(function)), var)
            if not kept.same_as(var):
                same[var] = kept
    keys = {}
    for name, function in cells.items():
        plain = _nameless(function)
        if same:
            plain = structural_map(plain, (tvm.ir.GlobalVar, lambda var: same.get(var, var)))
        weights = [param.name for param in weight_params(function)]
        keys[name] = StructuralKey(plain), tuple(map(weights.index, weights))
    return keys


def _nameless(function: Any) -> Any:
    has = function.attrs is not None and "global_symbol" in function.attrs
    return function.without_attr("global_symbol") if has else function
