"""What the backends for CUDA and for its emulation have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import numpy as np
from tvm import IRModule
from tvm.ir.transform import Pass
from tvm.target import Target

from edbatch_tvm.backends.backend import Backend
from edbatch_tvm.backends.cpu_records import NO_RECORDS
from edbatch_tvm.backends.kept_library import kept_library
from edbatch_tvm.backends.options import CompileOptions, Database
from edbatch_tvm.errors import DatabaseError
from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.runtime.device_executor import DeviceExecutor, Launch
from edbatch_tvm.runtime.device_memory import DeviceMemory
from relay_ext.gpu_cells import GpuProgram
from relay_ext.pipeline import cell_passes
from schedules.cpu.machine import host_target
from schedules.cuda.execution_model import EmulatedThreads
from schedules.cuda.gradient_kernels import gradient_kernels
from schedules.cuda.kernels import Occupancy
from schedules.cuda.occupancy_records import machine_of, model_key, read_records, records_path
from schedules.cuda.product_precision import PRODUCTS, Products
from schedules.cuda.tir_pipeline import build_kernels
from schedules.device_names import SHIPPED


class GpuBackend(Backend):
    """Kernels in the form for GPUs; a subclass says what they are compiled for and in which memory they run."""

    dtypes = tuple(PRODUCTS)

    @property
    def title(self) -> str:
        """See :attr:`Backend.title`."""
        return "a GPU"

    def passes(self, signature: Signature, options: CompileOptions) -> list[Pass]:
        """See :meth:`Backend.passes`; kernels for GPUs have fast math of their own, and no pass makes them."""
        return cell_passes(share=True)

    def records(self, database: Database) -> dict[str, Occupancy]:
        """Tuned settings by :func:`~schedules.cuda.occupancy_records.model_key`; see :meth:`Backend.records`."""
        if isinstance(database, Occupancy) or str(database) == NO_RECORDS:
            return {}
        path = records_path(SHIPPED if database is None else database, self.device)
        if database is not None and not path.is_file():
            raise DatabaseError(
                f"no records of device {self.device!r} in {database}", "a folder that edbatch tune wrote to"
            )
        return {key: machine_of(record) for key, record in read_records(path).items()}

    def build(
        self, module: IRModule, signature: Signature, weights: Mapping[str, np.ndarray], options: CompileOptions
    ) -> DeviceExecutor:
        """See :meth:`Backend.build`."""
        key, given = model_key(module, options.dtype), options.database
        machine = given if isinstance(given, Occupancy) else self.records(given).get(key)
        executor = self.executor(module, signature, weights, options.launch, machine, PRODUCTS[options.dtype])
        executor.tuning_key = key
        return executor

    @abstractmethod
    def executor(
        self,
        module: IRModule,
        signature: Signature,
        weights: Mapping[str, np.ndarray],
        launch: Launch,
        machine: Occupancy | None,
        products: Products,
    ) -> DeviceExecutor:
        """The kernels of fused cells, built and loaded."""


def device_executor(
    program: GpuProgram,
    signature: Signature,
    weights: Mapping[str, np.ndarray],
    target: Target,
    memory: DeviceMemory,
    launch: Launch,
    emulate: EmulatedThreads | None = None,
) -> DeviceExecutor:
    """The kernels of `program` for `target`, with the functions for the host that pack weights."""
    kernels = program.schedule_kernels(emulate) if launch == "schedule" else program.batch_kernels(emulate)
    packs = kept_library(program.packs, host_target(), build_kernels) if len(program.packs.functions) else None
    # Machine code for a GPU is kept by itself, in schedules.cuda.nvcc.
    library = build_kernels(kernels, target) if emulate is None else kept_library(kernels, target, build_kernels)
    blocks = memory.units * program.machine.blocks_per_unit
    executor = DeviceExecutor(signature, program, kernels, library, packs, weights, memory, launch, blocks)
    executor.gradient_kernels = cache(partial(_gradient_kernels, target, emulate))
    return executor


def _gradient_kernels(target: Target, emulate: EmulatedThreads | None) -> Any:
    kernels = gradient_kernels(emulate)
    return build_kernels(kernels, target) if emulate is None else kept_library(kernels, target, build_kernels)
