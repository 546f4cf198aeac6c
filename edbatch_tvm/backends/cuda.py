"""NVIDIA GPUs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tvm import IRModule
from tvm.target import Target

from edbatch_tvm.backends.backend import TargetLike
from edbatch_tvm.backends.gpu import GpuBackend, device_executor
from edbatch_tvm.backends.options import CompileOptions
from edbatch_tvm.errors import TargetError
from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.runtime.device_executor import DeviceExecutor, Launch
from edbatch_tvm.runtime.device_memory import CudaMemory, DeviceMemory
from relay_ext.gpu_cells import gpu_program
from schedules.cpu.machine import host_target
from schedules.cuda.kernels import Occupancy
from schedules.cuda.product_precision import FLOAT32, PRODUCTS, Products
from schedules.cuda.tir_pipeline import cuda_source

DEFAULT_ARCH = "sm_90a"
"""Architecture of source that is written where there is no GPU."""


class CudaBackend(GpuBackend):
    """``"cuda"`` is this machine's GPU, ``{"kind": "cuda", "arch": "sm_80"}`` one that has to be here to run.

    Raises
    ------
    TargetError
        If no architecture is named and there is no GPU.
    """

    name = "cuda"
    kinds = ("cuda",)
    has_source = True

    def __init__(self, given: TargetLike) -> None:
        super().__init__(given)
        attributes = given.attrs if isinstance(given, Target) else given if isinstance(given, Mapping) else {}
        self.target = cuda_target(attributes.get("arch"))

    @property
    def device(self) -> str:
        """See :attr:`Backend.device`."""
        name = str(CudaMemory().device.device_name)
        return "cuda-" + "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())

    def executor(
        self,
        module: IRModule,
        signature: Signature,
        weights: Mapping[str, np.ndarray],
        launch: Launch = "schedule",
        machine: Occupancy | None = None,
        products: Products = FLOAT32,
    ) -> DeviceExecutor:
        """See :meth:`GpuBackend.executor`.

        Raises
        ------
        TargetError
            If there is no GPU, or not one of the target's architecture.
        """
        memory = CudaMemory()
        _check_arch(self.target, memory)
        program = gpu_program(module, signature, machine, products)
        return device_executor(program, signature, weights, self.target, memory, launch)

    def sources(self, module: IRModule, signature: Signature, options: CompileOptions) -> dict[str, str]:
        """See :meth:`Backend.sources`."""
        return gpu_sources(module, signature, self.target, PRODUCTS[options.dtype])


def gpu_sources(module: IRModule, signature: Signature, target: Target, products: Products = FLOAT32) -> dict[str, str]:
    """The CUDA source of every kernel by name, and of the one that runs a whole schedule; needs no GPU."""
    program = gpu_program(module, signature, products=products)
    every = {**dict(program.batch_kernels().functions), **dict(program.schedule_kernels().functions)}
    return {var.name_hint: cuda_source(IRModule({var: kernel}), target) for var, kernel in every.items()}


def cuda_target(arch: str | None) -> Target:
    """The CUDA target of this architecture, default: of the GPU that is here.

    Raises
    ------
    TargetError
        If there is none here.
    """
    return Target({"kind": "cuda", "arch": arch or _device_arch(CudaMemory())}, host=host_target())


def _device_arch(memory: DeviceMemory) -> str:
    arch = "sm_" + str(memory.device.compute_version).replace(".", "")
    return arch + "a" if arch == "sm_90" else arch


def _check_arch(target: Target, memory: DeviceMemory) -> None:
    here, wanted = _device_arch(memory), str(target.attrs["arch"])
    if here.rstrip("a") != wanted.rstrip("a"):
        raise TargetError(f"target arch {wanted!r}", f"{here!r}, that of this GPU", 'target="cuda" finds it')
