"""Cells under other names: of their parameters, and in a module."""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import relax

from edbatch_tvm.tvm_compat import structural_map
from relay_ext.signature import ATTRIBUTES, float_attributes


def renamed(function: relax.Function, names: Mapping[str, str]) -> relax.Function:
    """A copy of the cell `function` with other parameter names, for :func:`module_of`.

    Before and after, with ``{"W": "W_a"}``::

        cell(x, W):  return x @ W    -->    cell(x, W_a):  return x @ W_a
    """
    copy = relax.utils.copy_with_new_vars(function)
    attributes = float_attributes(function)
    if any(name in names for name in attributes):
        copy = copy.with_attr(ATTRIBUTES, [names.get(name, name) for name in attributes])
    fresh = {param: relax.Var(names.get(param.name, param.name), param.ty) for param in copy.params}
    return structural_map(copy, (relax.Var, lambda variable: fresh.get(variable, variable)))


def module_of(cells: Mapping[str, relax.Function]) -> tvm.IRModule:
    """The module of `cells`, in their order."""
    return tvm.IRModule({name: function.with_attr("global_symbol", name) for name, function in cells.items()})
