"""Cells with tables of other numbers of rows."""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import relax

from edbatch_tvm.tvm_compat import TensorType, structural_map
from relay_ext.renaming import module_of
from relay_ext.signature import cell_functions


def with_table_rows(mod: tvm.IRModule, rows: Mapping[str, int]) -> tvm.IRModule:
    """A copy of the cells `mod` in which tables have other numbers of rows.

    Before and after, with ``{"table": 900}``::

        cell(word, table: [256, H]):  return take(table, word)    -->    cell(word, table: [900, H]):  ...

    Parameters
    ----------
    mod : tvm.IRModule
    rows : mapping of str to int
        By the names of weights of which cells take rows, and which they use for nothing else.
    """
    return module_of({name: _resized(function, rows) for name, function in cell_functions(mod).items()})


def _resized(function: relax.Function, rows: Mapping[str, int]) -> relax.Function:
    copy = relax.utils.copy_with_new_vars(function)
    fresh = {
        param: relax.Var(
            param.name, TensorType((rows[param.name], *list(param.ty.shape.values)[1:]), str(param.ty.dtype))
        )
        for param in copy.params
        if param.name in rows
    }
    return structural_map(copy, (relax.Var, lambda variable: fresh.get(variable, variable)))
