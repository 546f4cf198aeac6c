"""Compilation that begins before all cells of a model are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tvm import IRModule

from edbatch_tvm.backends import CompileOptions, TargetLike, find_backend
from edbatch_tvm.backends.options import most_bytes
from relay_ext.bind_sizes import find_sizes
from relay_ext.pipeline import node_passes, run_passes, source_passes
from relay_ext.signature import signature_of

_CHOICES = {field.name for field in fields(CompileOptions)}


def begin_cells(mod: IRModule, params: Mapping[str, Any], target: TargetLike = "llvm", **options: Any) -> None:
    """Begin to compile cells in other threads; :func:`compile_model` takes over what is done.

    Parameters
    ----------
    mod : IRModule
    params : mapping of str to array
    target, **options
        Of :func:`compile_model`.

    Raises
    ------
    EdbatchError
        If `compile_model` would refuse them, for most reasons.
    """
    chosen = CompileOptions(**{name: value for name, value in options.items() if name in _CHOICES})
    if most_bytes(chosen.product_tables):
        return  # other cells, which depend on all that read a table
    nodes = run_passes(mod, source_passes(find_sizes(mod, params, None), chosen.dtype))
    nodes = run_passes(nodes, node_passes(chosen.granularity))
    find_backend(target).begin_cells(nodes, signature_of(nodes), chosen)
