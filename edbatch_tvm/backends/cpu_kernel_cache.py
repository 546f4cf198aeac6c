"""Kernels for a CPU, compiled one by one and linked: one that was compiled before is taken over.

A kernel is known by the digest of its code, so cells that differ may share kernels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

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
    with KernelCompilation(target, pipeline) as compilation:
        compilation.begin(kernels)
        of_kernels = compilation.objects().values()
    symbols = {name: symbol for kernel in kernels for name, symbol in kernel.symbols.items()}
    return linked([*of_kernels, *program_objects(program, target, pipeline)]), symbols


class KernelCompilation:
    """Kernels that other threads compile while this one lowers more: LLVM runs outside of Python's lock.

    Leaving the context waits for what runs and drops what has not begun.

    Parameters
    ----------
    target : Target
    pipeline : str
        What TVM lowers functions with.
    """

    def __init__(self, target: Target, pipeline: str) -> None:
        self._target, self._pipeline = target, pipeline
        self._context = tvm.transform.PassContext.current()
        self._found: dict[str, bytes | Future[bytes]] = {}
        cores = os.cpu_count() or 1
        apart = cores > 1 and not passes_are_watched()
        self._pool = ThreadPoolExecutor(cores, "edbatch-compile") if apart else None

    def __enter__(self) -> KernelCompilation:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def begin(self, kernels: Iterable[KernelCode]) -> None:
        """Compile `kernels`, but those that are compiled already.

        Raises
        ------
        OSError
            If this thread compiles and there is no room for temporary files.
        """
        for kernel in kernels:
            if kernel.digest in self._found:
                continue
            code = None if passes_are_watched() else _OBJECTS.get(self._key(kernel.digest))
            if code is not None:
                self._found[kernel.digest] = code
            elif self._pool is None:
                self._found[kernel.digest] = compile_kernel(kernel, self._target, self._pipeline)
            else:
                self._found[kernel.digest] = self._pool.submit(self._compiled_apart, kernel)

    def objects(self) -> dict[str, bytes]:
        """The object files of all kernels so far, by digest; waits for them.

        Raises
        ------
        OSError
            If there is no room for temporary files.
        """
        done = {digest: one.result() if isinstance(one, Future) else one for digest, one in self._found.items()}
        if not passes_are_watched():
            for digest, code in done.items():
                _OBJECTS.put(self._key(digest), code)
        return done

    def _key(self, digest: str) -> str:
        return digest_of({"kernel": digest, "target": str(self._target), "pipeline": self._pipeline})

    def _compiled_apart(self, kernel: KernelCode) -> bytes:
        with self._context:  # each thread has a context of its own; entered twice, it would forget what it has seen
            return compile_kernel(kernel, self._target, self._pipeline)


def compile_kernel(kernel: KernelCode, target: Target, pipeline: str) -> bytes:
    """The object file of one kernel.

    Raises
    ------
    OSError
        If there is no room for temporary files.
    """
    if kernel.packs:
        target = Target({**target.export(), "opt-level": 1})
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
