"""Shared libraries of compiled modules, made only where there is what it takes: LLVM ends the process otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
        with _said_by_the_compiler():
            executable.export_library(str(path), workspace_dir=folder)
        return path.read_bytes()


def object_code(executable: Any) -> bytes:
    """The object file of a compiled module.

    Raises
    ------
    OSError
        If there is no room for temporary files.
    """
    with TemporaryDirectory() as folder:
        require_room(executable, folder)
        path = Path(folder) / "code.o"
        executable.mod.write_to_file(str(path), "o")
        return path.read_bytes()


def linked(objects: Iterable[bytes]) -> bytes:
    """The shared library of object files.

    Raises
    ------
    OSError
        If there is no C compiler to link them with, or no room for temporary files.
    """
    if cc.get_cc() is None:
        raise FileNotFoundError("no C compiler on the PATH")
    with TemporaryDirectory() as folder:
        paths = []
        for number, content in enumerate(objects):
            paths.append(Path(folder) / f"{number}.o")
            paths[-1].write_bytes(content)
        library = Path(folder) / "library.so"
        with _said_by_the_compiler():
            cc.create_shared(str(library), [str(path) for path in paths])
        return library.read_bytes()


@contextmanager
def _said_by_the_compiler() -> Iterator[None]:
    """What a C compiler refuses as an OSError."""
    try:
        yield
    except RuntimeError as error:
        reason = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Compilation")]
        raise OSError(reason[0] if reason else "the C compiler failed") from None


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
