"""An error of TVM or of a pass as one that names the cell and its operators."""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import IRModule, relax

from edbatch_tvm.errors import CellError, EdbatchError
from relay_ext.signature import cell_functions


def cell_error(error: Exception, mod: IRModule, attempt: Callable[[IRModule], object]) -> CellError:
    """What to raise for an `error` that no check foresaw; it stays as the cause.

    Parameters
    ----------
    error : Exception
    mod : IRModule
        The cells.
    attempt : callable
        Compiles a module with one of them: the first for which that fails is named.
    """
    for name in cell_functions(mod):
        alone = _failure(attempt, _alone(mod, name))
        if alone is not None:
            operators = ", ".join(_operators(mod[name])) or "no operators"
            return CellError(
                f"cell {name!r} cannot be compiled ({_reason(alone)}); it consists of {operators}",
                "operators that TVM and this package compile",
                "compute this part outside the cell, or with other operators",
            )
    return CellError(f"the cells cannot be compiled together ({_reason(error)})", "cells that can", "report this")


def _failure(attempt: Callable[[IRModule], object], mod: IRModule) -> Exception | None:
    try:
        attempt(mod)
    except EdbatchError:
        return None
    except Exception as error:
        return error
    return None


def _alone(mod: IRModule, name: str) -> IRModule:
    """`mod` without the other cells."""
    others = {other for other in cell_functions(mod) if other != name}
    return IRModule({var: function for var, function in mod.functions.items() if var.name_hint not in others})


def _operators(function: relax.Function) -> list[str]:
    found: dict[str, None] = {}

    def visit(node: object) -> None:
        if isinstance(node, relax.Call):
            called = node.args[0] if getattr(node.op, "name", "") == "relax.call_tir" else node.op
            known = called.name_hint if isinstance(called, tvm.ir.GlobalVar) else getattr(called, "name", str(called))
            found[known] = None

    relax.analysis.post_order_visit(function.body, visit)
    return list(found)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no text'}"
