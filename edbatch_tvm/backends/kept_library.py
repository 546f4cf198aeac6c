"""Compiled modules for the CPU that are not whole models, kept on disk by the digest of their code.

These are the emulated kernels for GPUs, and the functions that pack weights for GPUs. The passes that make them run in
every process; compiling them takes longer.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tvm import IRModule
from tvm.target import Target

from edbatch_tvm.errors import EnvironmentMismatch
from edbatch_tvm.runtime.artifact import load_library
from edbatch_tvm.runtime.compilation_cache import (
    LIBRARY_SUFFIX,
    digest_of,
    find_file,
    folder,
    keep_file,
    pack_file,
    passes_are_watched,
    unpack_file,
)
from relay_ext.structure_digest import structure_digest
from schedules.cpu.link import shared_library


def kept_library(module: IRModule, target: Target, build: Callable[[IRModule, Target], Any]) -> Any:
    """What ``build(module, target)`` returns, or the library of it that an earlier process kept.

    Parameters
    ----------
    module : IRModule
    target : Target
        A CPU.
    build : callable
        A function of this package, whose sources are part of the key.

    Returns
    -------
    tvm.runtime.Executable or tvm.runtime.Module
        Has the functions of `module` by name.
    """
    if folder() is None or passes_are_watched() or platform.system() != "Linux":
        return build(module, target)
    names = [var.name_hint for var in module.functions]
    code = {"names": names, "code": structure_digest(list(module.functions.values()))}
    key = digest_of(code | {"target": str(target), "build": f"{build.__module__}.{build.__qualname__}"})
    found = _found(key, names)
    if found is not None:
        return found
    built = build(module, target)
    with suppress(OSError):
        keep_file(key + LIBRARY_SUFFIX, pack_file(key, {}, [shared_library(built)]))
    return built


def _found(key: str, names: list[str]) -> Any:
    """The library kept under `key`; None if there is none, or it does not load."""
    content = find_file(key + LIBRARY_SUFFIX)
    if content is None:
        return None
    with suppress(OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, EnvironmentMismatch):
        (library,) = unpack_file(key, content)[1]
        loaded = load_library(library)
        for name in names:
            loaded[name]
        return loaded
    return None
