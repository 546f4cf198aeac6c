"""Extension modules in C that are compiled when they are first needed and kept in the cache directory.

A wheel may bring them compiled (``setup.py``); else a C compiler and ``Python.h`` are needed, and the caller goes on
in Python where one of them is missing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edbatch_tvm.cache_files import cache_directory, read_sealed, write_sealed

_MOST_SECONDS = 120
_COMPILERS = ("gcc", "clang", "cc", "g++", "clang++", "c++")


def load_extension(name: str, sources: Path, kept_as: str) -> Any:
    """The extension module, compiled if nobody has done so before.

    Parameters
    ----------
    name : str
        Name of the module, which its ``PyInit_`` function has.
    sources : Path
        Folder with its files; ``module.c`` is what is compiled.
    kept_as : str
        First part of the name of the library in the cache directory.

    Raises
    ------
    ImportError, OSError
        If it cannot be.
    """
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise ImportError("it needs the global interpreter lock")
    built = sources.with_name(name + str(sysconfig.get_config_var("EXT_SUFFIX")))
    if _is_built_from(sources, built):
        return _imported(name, built)
    path = cache_directory() / f"{kept_as}-{_digest(sources)}.so"
    if read_sealed(path) is not None:
        return _imported(name, path)
    with TemporaryDirectory() as folder:
        made = Path(folder) / f"{name}.so"
        _compile(sources / "module.c", made)
        try:
            write_sealed(path, made.read_bytes())
        except OSError:  # no folder to keep it in: every process compiles it
            return _imported(name, made)
    return _imported(name, path)


def find_compiler() -> str | None:
    """The C compiler: that of ``CC``, else the first on the PATH; None if there is none."""
    named = os.environ.get("CC")
    return named if named else next(filter(None, map(shutil.which, _COMPILERS)), None)


def digest_of_sources(sources: Path) -> str:
    """Digest of all files of a folder; ``setup.py`` writes it beside what it builds."""
    digest = hashlib.sha256()
    for path in sorted(sources.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _is_built_from(sources: Path, library: Path) -> bool:
    """Whether a library that came with the package is there, and was compiled from these sources."""
    note = sources.with_suffix(".digest")
    return library.exists() and note.exists() and note.read_text() == digest_of_sources(sources)


def _digest(sources: Path) -> str:
    """Of everything that decides the library."""
    digest = hashlib.sha256(digest_of_sources(sources).encode())
    for part in (platform.machine(), str(sysconfig.get_config_var("SOABI")), platform.python_version()):
        digest.update(part.encode())
    return digest.hexdigest()[:20]


def _compile(source: Path, path: Path) -> None:
    compiler, include = find_compiler(), sysconfig.get_path("include")
    if compiler is None:
        raise FileNotFoundError("no C compiler on the PATH")
    if not (Path(include) / "Python.h").exists():
        raise FileNotFoundError(f"no Python.h in {include}")
    command = [*shlex.split(compiler), "-x", "c", "-std=c11", "-O3", "-fPIC", "-shared", "-I", include]
    try:
        done = subprocess.run(
            [*command, str(source), "-o", str(path)],
            capture_output=True,
            text=True,
            timeout=_MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{compiler} took more than {_MOST_SECONDS} s") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        raise OSError(errors[0] if errors else f"{compiler} failed")


def _imported(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path, loader=ExtensionFileLoader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
