"""Which targets LLVM knows: for an unknown one it silently takes another CPU, or ends the process."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache

from tvm.target import Target, codegen

from edbatch_tvm.errors import TargetError


def check_llvm(target: Target) -> None:
    """Refuse a triple, a CPU or a feature that LLVM does not know.

    Raises
    ------
    TargetError
        With names that are close to it.
    """
    attributes = target.attrs
    triple = str(attributes.get("mtriple", "") or codegen.llvm_get_system_triple())
    architecture = triple.partition("-")[0]
    architectures = _architectures(triple)
    if not architectures:
        raise _unknown("mtriple", architecture, list(map(str, codegen.llvm_get_targets())))
    cpu = str(attributes.get("mcpu", "") or "generic")
    if cpu not in (*architectures, "generic"):
        raise _unknown("mcpu", cpu, architectures)
    features = _features(triple)
    for feature in map(str, attributes.get("mattr", ()) or ()):
        if feature[:1] not in ("+", "-"):
            raise TargetError(f"mattr {feature!r}", f"'+{feature}' or '-{feature}'")
        if feature[1:] not in features:
            raise _unknown("mattr", feature[1:], sorted(features))


def _unknown(what: str, given: str, known: list[str]) -> TargetError:
    close = get_close_matches(given, known, 3, 0.5)
    return TargetError(f"unknown {what} {given!r}", f"one that LLVM knows, such as {', '.join(close or known[:3])}")


@cache
def _architectures(triple: str) -> list[str]:
    """The CPUs that LLVM knows for a triple; none for one that it does not know."""
    known = set(map(str, codegen.llvm_get_targets()))
    name = {"amd64": "x86_64", "arm64": "aarch64", "i686": "i386"}.get(name := triple.partition("-")[0], name)
    if name not in known:
        return []
    return [str(cpu) for cpu in codegen.llvm_get_cpu_archlist(Target({"kind": "llvm", "mtriple": triple}))]


@cache
def _features(triple: str) -> frozenset[str]:
    """The features of all CPUs of a triple."""
    found: set[str] = set()
    for cpu in _architectures(triple):
        found |= set(map(str, codegen.llvm_get_cpu_features(Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu}))))
    return frozenset(found)
