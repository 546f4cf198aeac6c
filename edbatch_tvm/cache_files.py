"""Files that one process writes and others load: sealed with a digest, in a folder of this user."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from edbatch_tvm.atomic_file import replacing

CACHE_VARIABLE = "EDBATCH_CACHE"
"""Environment variable: cache directory, instead of ``$XDG_CACHE_HOME/edbatch-tvm``."""

_DIGEST = hashlib.sha256().digest_size


def cache_directory() -> Path:
    """Where compiled code is kept for later processes."""
    if directory := os.environ.get(CACHE_VARIABLE):
        return Path(directory)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edbatch-tvm"


def write_sealed(path: Path, content: bytes) -> None:
    """Write a file that :func:`read_sealed` takes; its folder is made, for this user alone, where there is none.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with replacing(path) as file:
        file.write(content)
        file.write(hashlib.sha256(content).digest())


def read_sealed(path: Path) -> bytes | None:
    """The content of a file that :func:`write_sealed` wrote.

    None where there is none, where it is not what was written (loading a part of a library would end the process), or
    where others could have written it: the files hold native code.
    """
    try:
        if not (_is_ours(path) and _is_ours(path.parent)):
            return None
        content = path.read_bytes()
    except OSError:
        return None
    whole = len(content) > _DIGEST and hashlib.sha256(content[:-_DIGEST]).digest() == content[-_DIGEST:]
    return content[:-_DIGEST] if whole else None


def _is_ours(path: Path) -> bool:
    """Whether a file or folder is this user's, or root's, and not everybody's to write."""
    found = path.stat()
    if not hasattr(os, "geteuid"):
        return True
    writable = found.st_mode & stat.S_IWOTH and not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX)
    return found.st_uid in (os.geteuid(), 0) and not writable
