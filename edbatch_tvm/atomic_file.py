"""Files that are written whole or not at all, whenever the process is stopped."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file to write, which takes the place of `path` when the block ends without an error.

    It lies in the same folder and its content is on the disk before it gets the name. It has the permissions of the
    file that it replaces, a new one those that the umask leaves. A file that stands in for something else, such as a
    pipe or ``/dev/stdout``, is written directly.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        with open(target, "wb") as file:
            yield file
        return
    target = Path(os.path.realpath(target))  # a link stays a link
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~_umask()
    descriptor, scratch = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(scratch, mode)
        os.replace(scratch, target)
    except BaseException as error:
        with suppress(FileNotFoundError):  # Ctrl-C after it has got the name
            os.unlink(scratch)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # which writing and closing do not say
        raise


def _umask() -> int:
    """The process's umask; asking for it sets it for a moment, for other threads too, unless Linux tells."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1], 8) for line in file if line.startswith("Umask:"))
    except (OSError, StopIteration):
        mask = os.umask(0o077)
        os.umask(mask)
        return mask


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 file; who reads it meanwhile sees the old one or the whole new one.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    with replacing(path) as file:
        file.write(text.encode())
