"""Shared libraries of compiled modules, made only where there is what it takes: LLVM ends the process otherwise."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edbatch_tvm.tvm_compat import cc

SAFETY = 2
"""The text of a module is about 5 times as long as its object file; room for so much of it is enough."""


def shared_library(executable: Any) -> bytes:
    """The shared library that a compiled module is.

    Raises
    ------
    OSError
        If there is no C compiler to link it with, or no room for temporary files.
    """
    if cc.get_cc() is None:
        raise FileNotFoundError("no C compiler on the PATH")
    with TemporaryDirectory() as folder:
        require_room(executable, folder)
        path = Path(folder) / "library.so"
        try:
            executable.export_library(str(path), workspace_dir=folder)
        except RuntimeError as error:  # what the compiler said
            reason = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Compilation")]
            raise OSError(reason[0] if reason else "the C compiler failed") from None
        return path.read_bytes()


def require_room(executable: Any, folder: str | os.PathLike[str]) -> None:
    """Check that the object file of `executable` can be written to `folder`: LLVM calls ``exit`` where it cannot.

    Raises
    ------
    OSError
        If it cannot.
    """
    size = len(executable.mod.inspect_source("ll")) // SAFETY
    path = Path(folder) / "room"
    try:
        with open(path, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.write(bytes(size))
    finally:
        path.unlink(missing_ok=True)
