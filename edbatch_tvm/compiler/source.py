"""``edbatch_tvm.emit_source``: kernels as source text."""

from __future__ import annotations

from collections.abc import Mapping

from tvm import IRModule

from edbatch_tvm.argument_checks import require_type
from edbatch_tvm.backends import CompileOptions, TargetLike, find_backend
from edbatch_tvm.backends.cuda import DEFAULT_ARCH
from edbatch_tvm.compiler.lower import lower_cells
from edbatch_tvm.errors import CellError, TargetError


def emit_source(
    mod: IRModule,
    target: TargetLike = "cuda",
    sizes: Mapping[str, int] | None = None,
    dtype: str = "float32",
) -> dict[str, str]:
    """The CUDA source of the kernels of cells, by kernel; needs neither weights nor a GPU.

    Parameters
    ----------
    mod : IRModule
        See :func:`compile_model`.
    target : str, mapping or tvm.target.Target
        A CUDA target; ``"cuda"`` stands for :data:`~edbatch_tvm.backends.cuda.DEFAULT_ARCH`.
    sizes : mapping of str to int, optional
        Numbers for symbolic sizes of the cells.
    dtype : {"float32", "tfloat32", "bfloat16", "float16"}
        See :func:`compile_model`.

    Returns
    -------
    dict
        The source of each kernel of a batch, and ``edbatch_schedule``, the kernel that runs a whole schedule.

    Raises
    ------
    CellError
        If a cell cannot be batched, or a symbolic size is unknown.
    TargetError
        If the target is not a CUDA target.
    """
    require_type(mod, IRModule, "cells in an IRModule", CellError)
    options = CompileOptions(dtype=dtype)
    # Without an architecture the backend would ask for that of the GPU that is here.
    backend = find_backend({"kind": "cuda", "arch": DEFAULT_ARCH} if target == "cuda" else target)
    if not backend.has_source:
        raise TargetError(f"CUDA source for target {target!r}", '"cuda" or {"kind": "cuda", "arch": ...}')
    backend.check(options)
    lowered = lower_cells(mod, None, backend, options, sizes)
    return backend.sources(lowered.module, lowered.signature, options)
