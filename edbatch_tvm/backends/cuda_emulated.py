"""Kernels for GPUs as loops on the CPU, to check them where there is no GPU."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tvm import IRModule
from tvm.target import Target

from edbatch_tvm.backends.gpu import GpuBackend, device_executor
from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.runtime.device_executor import DeviceExecutor, Launch
from edbatch_tvm.runtime.device_memory import HostMemory
from relay_ext.gpu_cells import gpu_program
from schedules.cuda.execution_model import EmulatedThreads
from schedules.cuda.kernels import Occupancy
from schedules.cuda.product_precision import FLOAT32, Products

EMULATED = "cuda-emulated"
"""The target's name."""


class EmulatedBackend(GpuBackend):
    """``"cuda-emulated"``: the kernels for GPUs, built for the CPU; hardly optimised, as compiling takes longer."""

    name = EMULATED
    kinds = (EMULATED,)

    def executor(
        self,
        module: IRModule,
        signature: Signature,
        weights: Mapping[str, np.ndarray],
        launch: Launch = "schedule",
        machine: Occupancy | None = None,
        products: Products = FLOAT32,
        backwards: bool = False,
    ) -> DeviceExecutor:
        """See :meth:`GpuBackend.executor`; `backwards`: threads and blocks in reverse order."""
        target = Target({"kind": "llvm", "opt-level": 0})
        program = gpu_program(module, signature, machine, products)
        emulate = EmulatedThreads(backwards)
        return device_executor(program, signature, weights, target, HostMemory(), launch, emulate)
