"""Instruction sets: what a library was built for, and what this machine's CPU has."""

from __future__ import annotations

import platform
from collections.abc import Iterable

from tvm.target import Target, codegen

from edbatch_tvm.native.build import cpu_features

_SETS = ("sse", "ssse", "avx", "fma", "f16c", "bmi", "lzcnt", "popcnt", "movbe", "neon", "sve", "dotprod", "fullfp16")
"""How names of instruction sets that kernels can use begin; LLVM's other features are advice on tuning."""

_OTHER_NAMES = {
    "bmi": "bmi1",
    "lzcnt": "abm",
    "sse3": "pni",
    "neon": "asimd",
    "dotprod": "asimddp",
    "fullfp16": "asimdhp",
}
"""Names that Linux has for sets of LLVM's, where they differ in more than dots and underscores."""


def instruction_sets(target: Target) -> tuple[str, ...]:
    """Instruction sets that code for `target` may use, by LLVM's names."""
    return tuple(sorted(name for name in map(str, codegen.llvm_get_cpu_features(target)) if name.startswith(_SETS)))


def missing_sets(needed: Iterable[str]) -> list[str]:
    """Those of `needed` that this machine's CPU does not have."""
    flags = {_plain(flag) for flag in cpu_features().split()}
    if not flags:  # not on Linux: what LLVM knows of a CPU of this name
        own = Target({"kind": "llvm", "mcpu": codegen.llvm_get_system_cpu()})
        flags = {_plain(name) for name in instruction_sets(own)}
    return [name for name in needed if not {_plain(name), _OTHER_NAMES.get(name, "")} & flags]


def architecture() -> str:
    """The kind of machine, such as ``x86_64``."""
    return platform.machine()


def _plain(name: str) -> str:
    return name.replace("_", "").replace(".", "").replace("-", "")
