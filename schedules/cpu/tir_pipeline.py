"""Lowering of finished kernels: TVM's own TIR pipeline without the passes on blocks.

Kernels leave :mod:`relay_ext` as plain loops. The block passes of the default pipeline change nothing then, but
``CompactBufferAllocation`` alone takes three quarters of the compilation of a stage kernel (measured: 3.1 of 4.2 s for
the three kernels of a TreeLSTM).
"""

from __future__ import annotations

from typing import Any

import tvm

from edbatch_tvm.tvm_compat import finalize_device_passes, finalize_host_passes, s_tir, tirx
from schedules.cpu.fast_math import FastMath
from schedules.cpu.nested_functions import NestedFunctionsFirst
from schedules.float_semantics import FloatSemantics

KERNEL_PIPELINE = "edbatch_kernel"
"""Name of this pipeline for ``tvm.compile(..., tir_pipeline=...)``."""

LIBM_PIPELINE = "edbatch_kernel_libm"
"""Name of the same without :class:`~schedules.cpu.fast_math.FastMath`."""


_LLVM_SHARES = "_llvm_shares"
"""Ends the names of the same pipelines without ``CommonSubexprElim``: LLVM finds common subexpressions, too."""


def compiled(module: tvm.IRModule, target: tvm.target.Target, pipeline: str) -> Any:
    """What ``tvm.compile`` makes of kernels by one of these pipelines.

    ``CommonSubexprElim`` of TVM 0.27 moves some subexpressions out of reach of what reads them, which code generation
    then says (``cannot find variable cse_v16``).
    """
    try:
        return tvm.compile(module, target=target, tir_pipeline=pipeline)
    except tvm.error.InternalError as error:
        if "cannot find variable cse_v" not in str(error):
            raise
    return tvm.compile(module, target=target, tir_pipeline=pipeline + _LLVM_SHARES)


def kernel_pipeline(fast_math: bool = True, sharing: bool = True) -> tvm.transform.Pass:
    """The passes from plain loops to host functions, in the order of TVM's default pipeline."""
    return tvm.transform.Sequential(
        [
            NestedFunctionsFirst(),
            *([FastMath()] if fast_math else []),
            FloatSemantics(),
            tirx.transform.FlattenBuffer(),
            tirx.transform.BF16ComputeLegalize(),
            tirx.transform.NarrowDataType(32),
            tirx.transform.VectorizeLoop(),
            # Storage rewriting then sees that a buffer is read and written by whole vectors, and makes it one of
            # vectors: LLVM aligns only those, and a vector across two cache lines costs two accesses.
            tirx.transform.StmtSimplify(),
            tirx.transform.StorageRewrite(),
            tirx.transform.UnrollLoop(),
            tirx.transform.StmtSimplify(),
            tirx.transform.RemoveNoOp(),
            s_tir.transform.RewriteUnsafeSelect(),
            *([tirx.transform.CommonSubexprElim()] if sharing else []),
            tirx.transform.FP8ComputeLegalize(),
            tirx.transform.VerifyMemory(),
            tirx.transform.AnnotateEntryFunc(),
            tirx.transform.SplitHostDevice(),
            tirx.transform.MakePackedAPI(),
            tirx.transform.FP8StorageLegalize(),
            tirx.transform.BF16StorageLegalize(),
        ],
        name="KernelPipeline",
    )


for _name, _fast in ((KERNEL_PIPELINE, True), (LIBM_PIPELINE, False)):
    for _shares in (True, False):
        tirx.register_tir_pipeline(
            _name if _shares else _name + _LLVM_SHARES,
            lambda fast=_fast, shares=_shares: (
                kernel_pipeline(fast, shares),
                finalize_host_passes,
                finalize_device_passes,
            ),
        )
