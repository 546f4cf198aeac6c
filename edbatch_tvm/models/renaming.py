"""One cell under several names, with weights of its own under each.

A cell that a model has several times (one LSTM a direction and layer, one tree node a type) is written once in
TVMScript and once in NumPy; its copies differ in the names of their parameters, and cells share weights by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import tvm
import tvm_ffi
from tvm import relax

from edbatch_tvm.models.reference import Function


def suffixed(suffix: str, *names: str) -> dict[str, str]:
    """New names for :func:`renamed`: each of `names` with ``_suffix`` behind it.

    Examples
    --------
    >>> suffixed("a", "W", "b")
    {'W': 'W_a', 'b': 'b_a'}
    """
    return {name: f"{name}_{suffix}" for name in names}


def renamed(function: relax.Function, names: Mapping[str, str]) -> relax.Function:
    """A copy of the cell `function` with other parameter names, for :func:`module_of`.

    Before and after, with ``{"W": "W_a"}``::

        cell(x, W):  return x @ W    -->    cell(x, W_a):  return x @ W_a
    """
    copy = relax.utils.copy_with_new_vars(function)
    fresh = {param: relax.Var(names.get(param.name, param.name), param.ty) for param in copy.params}
    return tvm_ffi.structural_map(copy, (relax.Var, lambda variable: fresh.get(variable, variable)))


def module_of(cells: Mapping[str, relax.Function]) -> tvm.IRModule:
    """The module of `cells`, in their order."""
    return tvm.IRModule({name: function.with_attr("global_symbol", name) for name, function in cells.items()})


def renamed_reference(function: Function, names: Mapping[str, str]) -> Function:
    """The reference `function` with other parameter names, as :func:`renamed` does it for the cell."""
    original = {names.get(name, name): name for name in inspect.signature(function).parameters}

    def with_other_names(**arguments: Any) -> Any:
        return function(**{original[name]: value for name, value in arguments.items()})

    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in original]
    with_other_names.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return with_other_names
