"""Backends by the targets they serve."""

from __future__ import annotations

from collections.abc import Mapping

from tvm.target import Target

from edbatch_tvm.backends.backend import Backend, TargetLike
from edbatch_tvm.errors import TargetError

_BACKENDS: dict[str, type[Backend]] = {}


def register_backend(backend: type[Backend]) -> None:
    """Let :func:`find_backend` find `backend` for each of its kinds."""
    _BACKENDS.update(dict.fromkeys(backend.kinds, backend))


def backend_names() -> tuple[str, ...]:
    """The names of the registered backends."""
    return tuple(dict.fromkeys(backend.name for backend in _BACKENDS.values()))


def find_backend(target: TargetLike) -> Backend:
    """The backend for `target`.

    Raises
    ------
    TargetError
        If it is no target for this version, or not available here.
    """
    kind = str(target.get("kind") if isinstance(target, Mapping) else getattr(target, "kind", target))
    if kind in _BACKENDS:
        return _BACKENDS[kind](target)
    if kind in Target.list_kinds():
        # Before the target is made: making one for a device that is not there prints a warning.
        raise _none(kind)
    resolved = as_target(target)
    found = _BACKENDS.get(resolved.kind.name)
    if found is None:
        raise _none(resolved.kind.name)
    return found(resolved)


def as_target(target: TargetLike) -> Target:
    """`target` as TVM has it.

    Raises
    ------
    TargetError
        If TVM does not know it.
    """
    if isinstance(target, Target):
        return target
    try:
        return Target(dict(target) if isinstance(target, Mapping) else target)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise TargetError(
            f"unknown target {target!r} ({reason})",
            'a TVM target such as "llvm" or {"kind": "llvm", "mcpu": "haswell"}',
        ) from None


def _none(kind: str) -> TargetError:
    return TargetError(f"target {kind!r}", "llvm or cuda")
