"""Building models for GPUs, or for their emulation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tvm import IRModule
from tvm.target import Target

from edbatch_tvm.compiler.records import NO_RECORDS
from edbatch_tvm.errors import DatabaseError, TargetError
from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.runtime.device import DeviceKernels, Launch
from edbatch_tvm.runtime.device_memory import CudaMemory, DeviceMemory, HostMemory
from relay_ext.gpu_cells import GpuProgram, gpu_program
from schedules.cpu.machine import host_target
from schedules.cuda.kernels import Machine
from schedules.cuda.lowering import build_kernels, cuda_source
from schedules.cuda.products import FLOAT32, PRODUCTS, Products
from schedules.cuda.records import machine_of, read_records, records_path
from schedules.cuda.threads import EmulatedThreads
from schedules.devices import SHIPPED

EMULATED = "cuda-emulated"
"""Target of models whose GPU kernels run as loops on the CPU, to check them where there is no GPU."""

DEFAULT_ARCH = "sm_90a"
"""Architecture of source that is written where there is no GPU."""


def gpu_kernels(
    module: IRModule,
    signature: Signature,
    weights: Mapping[str, np.ndarray],
    target: Target,
    launch: Launch = "schedule",
    products: Products = FLOAT32,
    machine: Machine | None = None,
) -> DeviceKernels:
    """The kernels of fused cells, built and loaded onto the GPU.

    Raises
    ------
    TargetError
        If there is no GPU, or not one of the target's architecture.
    """
    memory = CudaMemory()
    _check_arch(target, memory)
    program = gpu_program(module, signature, machine, products)
    return _kernels(program, signature, weights, target, memory, launch, None)


def emulated_kernels(
    module: IRModule,
    signature: Signature,
    weights: Mapping[str, np.ndarray],
    launch: Launch = "schedule",
    machine: Machine | None = None,
    backwards: bool = False,
    products: Products = FLOAT32,
) -> DeviceKernels:
    """The same kernels, built for the CPU; hardly optimised, as compiling takes longer than running."""
    target = Target({"kind": "llvm", "opt-level": 0})
    program = gpu_program(module, signature, machine, products)
    return _kernels(program, signature, weights, target, HostMemory(), launch, EmulatedThreads(backwards))


def _kernels(
    program: GpuProgram,
    signature: Signature,
    weights: Mapping[str, np.ndarray],
    target: Target,
    memory: DeviceMemory,
    launch: Launch,
    emulate: EmulatedThreads | None,
) -> DeviceKernels:
    kernels = program.schedule_kernels(emulate) if launch == "schedule" else program.batch_kernels(emulate)
    packs = build_kernels(program.packs, host_target()) if len(program.packs.functions) else None
    library = build_kernels(kernels, target)
    blocks = memory.units * program.machine.blocks_per_unit
    return DeviceKernels(signature, program, kernels, library, packs, weights, memory, launch, blocks)


def gpu_sources(module: IRModule, signature: Signature, target: Target, products: Products = FLOAT32) -> dict[str, str]:
    """The CUDA source of every kernel by name, and of the one that runs a whole schedule; needs no GPU."""
    program = gpu_program(module, signature, products=products)
    every = {**dict(program.batch_kernels().functions), **dict(program.schedule_kernels().functions)}
    return {var.name_hint: cuda_source(IRModule({var: kernel}), target) for var, kernel in every.items()}


def find_machine(database: str | Path | Machine | None, device: str, key: str) -> Machine | None:
    """The tuned settings for a model, or None for the default.

    Parameters
    ----------
    database : str, path or Machine, optional
        A folder that ``edbatch tune`` wrote to; ``"none"``; nothing, for the records that are shipped; or the settings.
    device : str
    key : str
        See :func:`schedules.cuda.records.model_key`.

    Raises
    ------
    DatabaseError
        If a folder that is named has no readable records of this device.
    """
    if isinstance(database, Machine) or str(database) == NO_RECORDS:
        return database if isinstance(database, Machine) else None
    path = records_path(SHIPPED if database is None else database, device)
    if database is not None and not path.is_file():
        raise DatabaseError(f"no records of device {device!r} in {database}", "a folder that edbatch tune wrote to")
    record = read_records(path).get(key)
    return None if record is None else machine_of(record)


def device_of(target: Any) -> str:
    """The name that records of a device are kept under.

    Raises
    ------
    TargetError
        If there is no GPU.
    """
    if target == EMULATED:
        return EMULATED
    name = str(CudaMemory().device.device_name)
    return "cuda-" + "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def products_of(dtype: str, on_gpu: bool) -> Products:
    """What products are computed in for the option `dtype`.

    Raises
    ------
    TargetError
        If there is no such dtype for the target.
    """
    names = list(PRODUCTS) if on_gpu else [FLOAT32.name]
    if dtype not in names:
        where = "a GPU" if on_gpu else "target 'llvm'"
        raise TargetError(f"dtype {dtype!r} for {where}", f"one of {', '.join(names)}")
    return PRODUCTS[dtype]


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
