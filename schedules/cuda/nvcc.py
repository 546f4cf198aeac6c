"""CUDA source to machine code: by nvcc where it is on the PATH, else as TVM does it; kept in the cache directory."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from tvm.target import Target

from edbatch_tvm.cache_files import cache_directory, read_sealed, write_sealed
from edbatch_tvm.errors import TargetError
from edbatch_tvm.tvm_compat import compile_cuda, register_cuda_compiler

OPTIONS = ("-w", "-std=c++17", "-O3")
"""What nvcc is called with; multiplications and additions are fused, nothing else is approximated."""


def machine_code(source: str, arch: str) -> bytes:
    """Machine code of `source` for an architecture such as ``sm_90a``, compiled once on a machine.

    Raises
    ------
    TargetError
        If nvcc refuses it.
    """
    nvcc = shutil.which("nvcc")
    key = hashlib.sha256("\0".join([source, arch, *OPTIONS, _version(nvcc)]).encode()).hexdigest()
    path = cache_directory() / "cuda" / f"{key}.cubin"
    kept = read_sealed(path)
    if kept is not None:
        return kept
    code = (
        bytes(compile_cuda(source, "cubin", arch, compiler="nvrtc")) if nvcc is None else _compiled(nvcc, source, arch)
    )
    with suppress(OSError):
        write_sealed(path, code)
    return code


def _compiled(nvcc: str, source: str, arch: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kernel.cu").write_text(source, encoding="utf-8")
        number = arch.removeprefix("sm_")
        target = f"-gencode=arch=compute_{number},code={arch}"
        command = [nvcc, *OPTIONS, target, "--cubin", "-o", "kernel.cubin", "kernel.cu"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[0]
            raise TargetError(f"nvcc failed for {arch}: {reason}", "source that compiles")
        return (Path(folder) / "kernel.cubin").read_bytes()


def _version(nvcc: str | None) -> str:
    if nvcc is None:
        return "nvrtc"
    return subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout


@register_cuda_compiler
def _callback(source: Any) -> bytes:
    """TVM's hook; the target is the one that a module is being built for."""
    target = Target.current(allow_none=True)
    if target is None or "arch" not in target.attrs:
        return bytes(compile_cuda(str(source), "cubin", compiler="nvrtc" if shutil.which("nvcc") is None else "nvcc"))
    return machine_code(str(source), str(target.attrs["arch"]))
