"""Kernels for a CPU, compiled one by one and linked: one that was compiled before is taken over.

A kernel is known by the digest of its code, so cells that differ may share kernels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

import tvm
from tvm import IRModule
from tvm.target import Target

from edbatch_tvm.bounded_cache import BoundedCache
from edbatch_tvm.fork_lock import fork_lock
from edbatch_tvm.runtime.compilation_cache import digest_of, passes_are_watched
from relay_ext.split_program import KernelCode, split_program
from schedules.cpu.link import linked, object_code
from schedules.cpu.tir_pipeline import compiled
from schedules.cpu.work_sharing import sharing_ir

MOST_BYTES = 64 << 20
"""Of object files that a process holds."""

_OBJECTS: BoundedCache[str, bytes] = BoundedCache(MOST_BYTES, len)


def forget_kernels() -> None:
    """Compile everything anew from now on."""
    _RUNNING.forget()
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
    return linked([*of_kernels, compiled_code(program, target, pipeline)]), symbols


def kernel_objects(kernels: Mapping[str, KernelCode], target: Target, pipeline: str) -> list[bytes]:
    """The object files of kernels, which are given by their digests.

    Raises
    ------
    OSError
        If there is no room for temporary files.
    """
    if passes_are_watched():
        return [compile_kernel(kernel, target, pipeline) for kernel in kernels.values()]
    codes = _begun(kernels, target, pipeline)
    try:
        return [code if isinstance(code, bytes) else code.result() for code in codes]
    finally:
        _RUNNING.keep_finished()


def begin_kernels(kernels: Mapping[str, KernelCode], target: Target, pipeline: str) -> None:
    """Begin to compile kernels on all cores, as far as nobody has; :func:`kernel_objects` waits for them.

    LLVM runs outside of Python's lock, so the caller goes on meanwhile.
    """
    if not passes_are_watched():
        _begun(kernels, target, pipeline)


def _begun(kernels: Mapping[str, KernelCode], target: Target, pipeline: str) -> list[bytes | Future[bytes]]:
    """The object file of each kernel, or what will be one."""
    codes: list[bytes | Future[bytes]] = []
    for digest, kernel in kernels.items():
        key = digest_of({"kernel": digest, "target": str(target), "pipeline": pipeline})
        code = _OBJECTS.get(key)
        codes.append(_RUNNING.begin(key, kernel, target, pipeline) if code is None else code)
    return codes


class _Running:
    """Kernels that threads compile now. A process is forked when there are none, so that LLVM's locks are free."""

    def __init__(self) -> None:
        self._lock = fork_lock()
        self._codes: dict[str, Future[bytes]] = {}
        self._pool: ThreadPoolExecutor | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._hold, after_in_parent=self._lock.release, after_in_child=self._in_child)

    def begin(self, key: str, kernel: KernelCode, target: Target, pipeline: str) -> Future[bytes]:
        """Begin to compile a kernel, unless that is under way."""
        context = tvm.transform.PassContext.current()

        def compile_one() -> bytes:
            with context:  # each thread has a context of its own
                return compile_kernel(kernel, target, pipeline)

        with self._lock:
            if key not in self._codes:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(os.cpu_count(), "edbatch-compile")
                self._codes[key] = self._pool.submit(compile_one)
            return self._codes[key]

    def keep_finished(self) -> None:
        """Move what is compiled to the cache. No thread stays when nothing is under way."""
        with self._lock:
            for key, code in list(self._codes.items()):
                if code.done():
                    del self._codes[key]
                    if code.exception() is None:
                        _OBJECTS.put(key, code.result())
            if not self._codes and self._pool is not None:
                self._pool.shutdown(wait=False)
                self._pool = None

    def forget(self) -> None:
        """Nobody waits for what is under way."""
        self._codes = {}
        self._pool = None

    def _hold(self) -> None:
        self._lock.acquire()
        wait(list(self._codes.values()))

    def _in_child(self) -> None:
        self.forget()  # its threads are in the parent
        self._lock.release()


_RUNNING = _Running()


def compile_kernel(kernel: KernelCode, target: Target, pipeline: str) -> bytes:
    """The object file of one kernel.

    Raises
    ------
    OSError
        If there is no room for temporary files.
    """
    return compiled_code(kernel.module(), target, pipeline)


def compiled_code(module: IRModule, target: Target, pipeline: str) -> bytes:
    """The object file of `module`.

    Raises
    ------
    OSError
        If there is no room for temporary files.
    """
    return object_code(compiled(module, target, pipeline))
