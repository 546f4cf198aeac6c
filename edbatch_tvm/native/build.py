"""Build the kernels once and keep the library in a cache directory.

The library's name holds a digest of what it depends on: this package's sources, the TVM version and the CPU. A process
writes a scratch file and renames it, so that another one sees no library or a whole one. A library that does not load
is built again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

CACHE_VARIABLE = "EDBATCH_CACHE"
"""Environment variable: cache directory, instead of ``$XDG_CACHE_HOME/edbatch-tvm``."""

SOURCES = (
    "native/source.py",
    "native/constants.py",
    "native/build.py",
    "batching/encoding.py",
    "batching/fixed.py",
    "batching/splitmix.py",
)
"""Files of this project that the library is made from."""


def cache_directory() -> Path:
    """Where libraries are kept."""
    if directory := os.environ.get(CACHE_VARIABLE):
        return Path(directory)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edbatch-tvm"


def library_path() -> Path:
    """Path of the library for this project, TVM and machine."""
    digest = hashlib.sha256()
    root = Path(__file__).parent.parent
    for name in SOURCES:
        digest.update((root / name).read_bytes())
    for version in (importlib.metadata.version("apache-tvm"), importlib.metadata.version("apache-tvm-ffi")):
        digest.update(version.encode())
    digest.update(platform.machine().encode())
    digest.update(_cpu_features().encode())
    return cache_directory() / f"batching-{digest.hexdigest()[:20]}.so"


def load_library() -> Any:
    """The library: loaded from the cache, or built and put there.

    Returns
    -------
    tvm.runtime.Module or tvm.runtime.Executable
        ``library[name]`` is a callable. The executable itself where no library can be written (no C compiler to link
        with, read-only file system): then every process builds its own.

    Raises
    ------
    ImportError
        If TVM is missing.
    """
    import tvm

    path = library_path()
    if path.is_file():
        try:
            return tvm.runtime.load_module(str(path))
        except (OSError, RuntimeError):
            path.unlink(missing_ok=True)
    executable = _compile()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            built = Path(scratch) / path.name
            executable.export_library(str(built))
            os.replace(built, path)
        return tvm.runtime.load_module(str(path))
    except (OSError, RuntimeError):
        return executable


def _compile() -> Any:
    import tvm

    from edbatch_tvm.native.source import Kernels

    target: dict[str, Any] = {"kind": "llvm", "opt-level": 2}
    if "avx2" in _cpu_features().split():
        # Eight lanes to a register, for the typewise rows.
        target["mcpu"] = "x86-64-v3"
    return tvm.compile(Kernels, target=tvm.target.Target(target))


def _cpu_features() -> str:
    """Features of the CPU as Linux lists them; empty elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line for line in file if line.startswith(("flags", "Features"))]
    except OSError:
        return ""
    return lines[0].partition(":")[2].strip() if lines else ""
