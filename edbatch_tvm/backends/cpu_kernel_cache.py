"""Kernels for a CPU, compiled one by one and linked: one that was compiled before is taken over.

A kernel is known by the digest of its code, so cells that differ may share kernels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import tvm
from tvm import IRModule
from tvm.target import Target

from edbatch_tvm.bounded_cache import BoundedCache
from edbatch_tvm.runtime.compilation_cache import digest_of, passes_are_watched
from relay_ext.split_program import KernelCode, split_program, split_steps
from relay_ext.structure_digest import structure_digest
from schedules.cpu.link import linked, object_code
from schedules.cpu.tir_pipeline import compiled
from schedules.cpu.work_sharing import sharing_ir

MOST_BYTES = 64 << 20
"""Of object files that a process holds."""

_OBJECTS: BoundedCache[str, bytes] = BoundedCache(MOST_BYTES, len)


def forget_kernels() -> None:
    """Compile everything anew from now on."""
    _OBJECTS.clear()


def kernel_library(module: IRModule, target: Target, pipeline: str) -> tuple[bytes, dict[str, str]]:
    """The shared library of a program and its kernels.

    Parameters
    ----------
    module : IRModule
        As :class:`~relay_ext.join_model_kernels.JoinModelKernels` leaves it.
    pipeline : str
        What TVM lowers functions with.

    Returns
    -------
    library : bytes
    symbols : dict of str to str
        What functions of `module` are called in the library, where that is not their name.

    Raises
    ------
    OSError
        If it cannot be linked here, or there is no room for temporary files.
    """
    kernels, program = split_program(module, sharing_ir(target))
    of_kernels = kernel_objects({kernel.digest: kernel for kernel in kernels}, target, pipeline)
    symbols = {name: symbol for kernel in kernels for name, symbol in kernel.symbols.items()}
    return linked([*of_kernels, *program_objects(program, target, pipeline)]), symbols


def kernel_objects(kernels: dict[str, KernelCode], target: Target, pipeline: str) -> list[bytes]:
    """The object files of kernels, which are given by their digests.

    Raises
    ------
    OSError
        If there is no room for temporary files.
    """
    if passes_are_watched():
        return [compile_kernel(kernel, target, pipeline) for kernel in kernels.values()]
    keys = [digest_of({"kernel": one, "target": str(target), "pipeline": pipeline}) for one in kernels]
    objects = {key: _OBJECTS.get(key) for key in keys}
    missing = [(key, one) for key, one in zip(keys, kernels.values(), strict=True) if objects[key] is None]
    for (key, _), code in zip(missing, _compile_all([one for _, one in missing], target, pipeline), strict=True):
        objects[key] = code
        _OBJECTS.put(key, code)
    return [code for code in objects.values() if code is not None]


def _compile_all(kernels: Sequence[KernelCode], target: Target, pipeline: str) -> list[bytes]:
    """Compile kernels on all cores: LLVM runs outside of Python's lock."""
    workers = min(len(kernels), os.cpu_count() or 1)
    if workers < 2:
        return [compile_kernel(kernel, target, pipeline) for kernel in kernels]
    context = tvm.transform.PassContext.current()

    def compile_one(kernel: KernelCode) -> bytes:
        with context:  # each thread has a context of its own
            return compile_kernel(kernel, target, pipeline)

    with ThreadPoolExecutor(workers, "edbatch-compile") as pool:
        return list(pool.map(compile_one, kernels))


def compile_kernel(kernel: KernelCode, target: Target, pipeline: str) -> bytes:
    """The object file of one kernel.

    Raises
    ------
    OSError
        If there is no room for temporary files.
    """
    return compiled_code(kernel.module(), target, pipeline)


def program_objects(program: IRModule, target: Target, pipeline: str) -> list[bytes]:
    """The object files of the functions that call kernels; programs that differ in names alone share them.

    The entry, which runs once per minibatch, is compiled without optimisation: it is long, since it checks its
    arguments, and LLVM otherwise takes longer for it than for a kernel.

    Parameters
    ----------
    program : IRModule
        As :func:`~relay_ext.split_program.without_kernels` leaves it.

    Raises
    ------
    OSError
        If there is no room for temporary files.
    """
    steps, entry = split_steps(program)
    return [
        _compiled_once(steps, target, pipeline),
        _compiled_once(entry, Target({**target.export(), "opt-level": 0}), pipeline),
    ]


def _compiled_once(module: IRModule, target: Target, pipeline: str) -> bytes:
    """The object file of `module`, which this process may have compiled before."""
    if passes_are_watched():
        return compiled_code(module, target, pipeline)
    functions = structure_digest(list(module.functions.values()), names=True)
    key = digest_of({"functions": functions, "target": str(target), "pipeline": pipeline})
    code = _OBJECTS.get(key)
    if code is None:
        code = compiled_code(module, target, pipeline)
        _OBJECTS.put(key, code)
    return code


def compiled_code(module: IRModule, target: Target, pipeline: str) -> bytes:
    """The object file of `module`.

    Raises
    ------
    OSError
        If there is no room for temporary files.
    """
    return object_code(compiled(module, target, pipeline))
