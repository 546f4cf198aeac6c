"""Compiled cells kept on disk, so that a later process that compiles the same ones only loads them.

A file's name is the digest of everything that decides the code (:func:`key_of`, :func:`digest_of`); weights do not
belong to it. Files are sealed (:mod:`edbatch_tvm.cache_files`). When the folder grows too large, the least recently
used files are deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from time import time
from typing import Any

import numpy as np
import tvm
from tvm import IRModule

from edbatch_tvm.cache_files import cache_directory, read_sealed, write_sealed
from edbatch_tvm.native.build import cpu_features
from edbatch_tvm.tvm_version import REQUIRED
from relay_ext.structure_digest import structure_digest

FOLDER_VARIABLE = "EDBATCH_MODEL_CACHE"
"""Environment variable: the folder, instead of ``models`` in the cache directory; ``none`` keeps nothing."""

SIZE_VARIABLE = "EDBATCH_MODEL_CACHE_MIB"
"""Environment variable: MiB that the folder may hold, instead of :data:`MOST_MIB`."""

MOST_MIB = 512

NOTHING = "none"

_SUFFIX = ".cells"
CELL_SUFFIX = ".cell"
LIBRARY_SUFFIX = ".library"
PROGRAM_SUFFIX = ".program"
SUFFIXES = (_SUFFIX, CELL_SUFFIX, LIBRARY_SUFFIX, PROGRAM_SUFFIX)
"""Of all cells of a model, of one (:mod:`edbatch_tvm.backends.cpu_cells`), of other kernels
(:mod:`edbatch_tvm.backends.kept_library`), and of imported programs (:mod:`edbatch_tvm.recording.export_cache`).
"""

_LEFT_UNSEEN = 64
"""The part of what a folder may hold that a process writes before it looks again whether that is too much."""

_unseen: dict[Path, int] = {}
"""Bytes that this process has written into a folder since it last looked."""

_ABANDONED = 3600.0
"""Seconds after which a scratch file has no writer any more."""


@dataclass(frozen=True, eq=False)
class KeptCells:
    """What a compilation finds out about cells, weights aside.

    Attributes
    ----------
    library : bytes
        The shared library.
    attributes : dict
        Of its functions.
    bounds : dict of str to list
        For each cell, the bounds of its attributes.
    constants : dict of str to array
        Constants of cells, which kernels read like weights.
    """

    library: bytes
    attributes: dict[str, dict[str, Any]]
    bounds: dict[str, list[int | None]]
    constants: dict[str, np.ndarray]


def folder() -> Path | None:
    """Where compiled cells are kept; None if they are not."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named == NOTHING:
        return None
    return Path(named) if named else cache_directory() / "models"


def key_of(cells: IRModule, choices: Mapping[str, Any]) -> str | None:
    """The digest of all that decides the code of `cells`; None if they are not kept.

    Beside `choices` these are the cells, TVM's pass context, the versions of TVM, the sources of this package and the
    CPU. With instruments in the pass context nothing is kept, since those are there to see the passes.
    """
    if folder() is None or passes_are_watched():
        return None
    functions = list(cells.functions.values())
    content = [[var.name_hint for var in cells.functions], structure_digest([*functions, cells.attrs], names=True)]
    return digest_of({"cells": content, "choices": dict(choices)})


def passes_are_watched() -> bool:
    """Whether TVM's pass context has instruments."""
    return bool(len(tvm.transform.PassContext.current().instruments or ()))


def digest_of(code: Mapping[str, Any]) -> str:
    """The digest of `code` and of everything else that its compilation depends on.

    This is TVM's pass context, the versions of TVM, the sources of this package and the CPU.
    """
    context = tvm.transform.PassContext.current()
    config = {str(name): str(value) for name, value in context.config.items()}
    document = {
        "context": [int(context.opt_level), *map(_texts, (context.required_pass, context.disabled_pass)), config],
        "versions": {package: metadata.version(package) for package in REQUIRED},
        "sources": sources_digest(),
        "machine": [platform.system(), platform.machine(), cpu_features()],
    }
    return hashlib.sha256(json.dumps(document | dict(code), sort_keys=True).encode()).hexdigest()


def _texts(names: Any) -> list[str]:
    return sorted(map(str, names or ()))


@cache
def sources_digest() -> str:
    """Digest of this project's sources, as far as code depends on them."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for package in ("edbatch_tvm", "relay_ext", "schedules"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def find(key: str) -> KeptCells | None:
    """The cells kept under `key`; None if there are none, or they are damaged or not ours."""
    content = find_file(key + _SUFFIX)
    try:
        return None if content is None else _unpacked(content, key)
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def keep(key: str, kept: KeptCells) -> None:
    """Keep cells for later processes; nothing happens where the folder cannot be written."""
    keep_file(key + _SUFFIX, _packed(kept, key))


def find_file(name: str) -> bytes | None:
    """What :func:`keep_file` kept under `name`; None if there is nothing, or it is damaged or not ours."""
    where = folder()
    content = None if where is None else read_sealed(where / name)
    if where is not None and content is not None:
        with suppress(OSError):
            os.utime(where / name)
    return content


def keep_file(name: str, content: bytes) -> None:
    """Keep a file for later processes; see :func:`keep_files`."""
    keep_files({name: content})


def keep_files(files: Mapping[str, bytes]) -> None:
    """Keep files for later processes; nothing happens where the folder cannot be written.

    Parameters
    ----------
    files : mapping of str to bytes
        By names with one of the suffixes in :data:`SUFFIXES`.
    """
    where = folder()
    if where is None or not files:
        return
    with suppress(OSError):
        for name, content in files.items():
            write_sealed(where / name, content)
        written = sum(map(len, files.values()))
        if where not in _unseen or _unseen[where] + written > most_bytes() // _LEFT_UNSEEN:
            _unseen[where] = 0
            _shrink(where, {where / name for name in files})
        else:
            _unseen[where] += written


def most_bytes() -> int:
    """How large the folder may grow."""
    given = os.environ.get(SIZE_VARIABLE, "")
    return int(given if given.isdecimal() else MOST_MIB) << 20


def _shrink(where: Path, newest: set[Path]) -> None:
    """Remove files until the folder is small enough, those that were not used for longest first.

    A full folder has thousands of files, so that to look at each takes a tenth of a second.
    """
    found = []
    with os.scandir(where) as entries:
        for entry in entries:
            with suppress(OSError):
                state = entry.stat()
                scratch = entry.name.startswith(".") and any(suffix in entry.name for suffix in SUFFIXES)
                if entry.name.endswith(SUFFIXES) and not scratch:
                    found.append((state.st_mtime, state.st_size, entry.name))
                elif scratch and state.st_mtime < time() - _ABANDONED:
                    (where / entry.name).unlink()
    total = sum(size for _, size, _ in found)
    for _, size, name in sorted(found) if total > most_bytes() else ():
        if total <= most_bytes() or where / name in newest:
            continue
        with suppress(OSError):
            (where / name).unlink()
        total -= size


# The file: the length of a JSON header, the header, and what it says follows ------------------------------------------


def pack_file(key: str, header: Mapping[str, Any], parts: Iterable[bytes]) -> bytes:
    """The content of a file with a header and `parts`, for :func:`unpack_file`."""
    parts = list(parts)
    text = json.dumps({"key": key, **header, "lengths": [len(part) for part in parts]}).encode()
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def unpack_file(key: str, content: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Header and parts of what :func:`pack_file` made.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is something else, or was made with another key.
    """
    at = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:at])
    if header["key"] != key:
        raise ValueError("kept under another key")
    parts = []
    for length in header["lengths"]:
        parts.append(content[at : at + length])
        at += length
    if at != len(content):
        raise ValueError("another length")
    return header, parts


def describe_arrays(arrays: Iterable[np.ndarray]) -> tuple[list[list[Any]], list[bytes]]:
    """Dtype and shape of arrays, and their content, for :func:`read_arrays`."""
    arrays = [np.asarray(array, order="C") for array in arrays]
    return [[str(one.dtype), list(one.shape)] for one in arrays], [one.tobytes() for one in arrays]


def read_arrays(described: Sequence[Any], parts: Sequence[bytes]) -> list[np.ndarray]:
    """The arrays that :func:`describe_arrays` described.

    Raises
    ------
    ValueError, TypeError
        If something else is described.
    """
    pairs = zip(described, parts, strict=True)
    return [np.frombuffer(part, dtype).reshape(shape).copy() for (dtype, shape), part in pairs]


def _packed(kept: KeptCells, key: str) -> bytes:
    described, arrays = describe_arrays(kept.constants.values())
    header = {
        "attributes": kept.attributes,
        "bounds": kept.bounds,
        "constants": [list(kept.constants), described],
    }
    return pack_file(key, header, [kept.library, *arrays])


def _unpacked(content: bytes, key: str) -> KeptCells:
    header, (library, *arrays) = unpack_file(key, content)
    names, described = header["constants"]
    constants = dict(zip(names, read_arrays(described, arrays), strict=True))
    return KeptCells(library, header["attributes"], header["bounds"], constants)
