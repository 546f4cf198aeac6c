"""Lowering of kernels for GPUs, and of their emulation.

TVM's own TIR pipeline without the passes on blocks, as for CPUs, and without those that put barriers in: phases have
theirs, and a second one after each would cost as much again. Nothing is simplified, no common subexpression moved and
no loop unrolled, which keeps names and shape of the source; the CUDA compiler does all three.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import IRModule
from tvm.target import Target

from edbatch_tvm.tvm_compat import Call, finalize_host_passes, s_tir, structural_map, tirx
from schedules.cuda import nvcc  # noqa: F401  (registers how CUDA source is compiled)
from schedules.float_semantics import FloatSemantics

GPU_PIPELINE = "edbatch_gpu_kernel"
"""Name of this pipeline for ``tvm.compile(..., tir_pipeline=...)``."""


@tvm.transform.module_pass(opt_level=0, name="SharedMemoryOfThreads")
class SharedMemoryOfThreads:
    """Take back the promise that TVM makes for every device function: that no two pointers meet.

    It becomes ``__restrict__``, and lets a compiler move a load across a barrier that it cannot see to concern the
    pointer. Here threads read behind a barrier what others wrote before it: scratch rows, arenas, workspace.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        functions = {}
        for var, function in mod.functions.items():
            on_device = function.attrs["target"].kind.name == "cuda"
            functions[var] = function.with_attr("tirx.noalias", False) if on_device else function
        return IRModule(functions, attrs=mod.attrs)


def gpu_pipeline() -> tvm.transform.Pass:
    """The passes from plain loops to host and device functions, in the order of TVM's default pipeline."""
    return tvm.transform.Sequential(
        [
            FloatSemantics(),
            tirx.transform.FlattenBuffer(),
            tirx.transform.BF16ComputeLegalize(),
            tirx.transform.NarrowDataType(32),
            tirx.transform.VectorizeLoop(),
            tirx.transform.StorageRewrite(),
            tirx.transform.RemoveNoOp(),
            s_tir.transform.RewriteUnsafeSelect(),
            tirx.transform.FP8ComputeLegalize(),
            tirx.transform.VerifyMemory(),
            tirx.transform.AnnotateEntryFunc(),
            tirx.transform.SplitHostDevice(),
            SharedMemoryOfThreads(),
            tirx.transform.MakePackedAPI(),
            tirx.transform.FP8StorageLegalize(),
            tirx.transform.BF16StorageLegalize(),
        ],
        name="GpuKernelPipeline",
    )


@tvm.transform.module_pass(opt_level=0, name="ShowConstants")
class ShowConstants:
    """Write constants that :class:`relay_ext.strict_floats.StrictFloats` hid as what they are.

    ``T.reinterpret("float32", 0x3F800000)`` becomes 1.0: CUDA has no address of a number, and nothing simplifies after
    this pass but the CUDA compiler, which keeps to the standard.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        functions = {
            var: function.with_body(structural_map(function.body, (Call, _shown), order="post"))
            for var, function in mod.functions.items()
        }
        return IRModule(functions, attrs=mod.attrs)


def _shown(call: Any) -> Any:
    if str(getattr(call.op, "name", "")) != "tirx.reinterpret" or not isinstance(call.args[0], tirx.IntImm):
        return call
    dtype = str(call.ty.dtype)
    if dtype not in ("float32", "float64"):
        return call
    bits = np.array(int(call.args[0]), f"int{dtype[5:]}")
    return tirx.const(float(bits.view(dtype)), dtype)


def _finish_device() -> tvm.transform.Pass:
    return tvm.transform.Sequential([tirx.transform.LowerIntrin(), ShowConstants()])


tirx.register_tir_pipeline(GPU_PIPELINE, lambda: (gpu_pipeline(), finalize_host_passes, _finish_device))


def build_kernels(module: IRModule, target: Target) -> Any:
    """`module` compiled; `target` is a CUDA target with a host, or LLVM for an emulation."""
    with target:  # the CUDA compiler is asked for the current target's architecture
        return tvm.compile(module, target=target, tir_pipeline=GPU_PIPELINE)


def cuda_source(module: IRModule, target: Target) -> str:
    """The CUDA source of `module`; needs no GPU."""
    return str(build_kernels(module, target).mod.imports[0].inspect_source())
