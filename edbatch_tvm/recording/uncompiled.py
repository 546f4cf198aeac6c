"""What ``torch.compile`` has made: while elements run, it is the Python that it was made of.

Its compiler cannot see recorded tensors. Batches are compiled anyway.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import MethodType
from typing import Any

import torch

from edbatch_tvm.fork_lock import fork_lock

_COMPILER = "torch._dynamo"
"""Not imported for this: that takes a second, and nothing is compiled before it is there."""

IN_PLACE = "_compiled_call_impl"
"""Where a module has what ``module.compile()`` made of its calls."""


def _of_compiler(name: str) -> Any:
    """What PyTorch's compiler calls `name`; None as long as it is not imported, or another thread imports it."""
    return getattr(sys.modules.get(_COMPILER), name, None)


def original(module: Any) -> Any:
    """The module that ``torch.compile`` was given; any other as it is."""
    kind = _of_compiler("OptimizedModule")
    while kind is not None and isinstance(module, kind):
        module = module._orig_mod
    return module


def original_method(method: Any) -> Any:
    """The method that ``torch.compile`` was given; any other as it is."""
    given = getattr(method, "_torchdynamo_orig_callable", None)
    return given if isinstance(given, MethodType) else method


def path_as_written(path: str) -> str:
    """The path of a submodule as the model's code has it, without the modules that ``torch.compile`` puts between."""
    return ".".join(name for name in path.split(".") if name != "_orig_mod")


def uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, in which compiled code runs as Python, and which is not compiled itself."""
    disabled: list[Callable[..., Any]] = []

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        disable = _of_compiler("disable")
        if disable is None:
            return function(*arguments, **named)
        if not disabled:
            disabled.append(disable(_in_python(function)))
        return disabled[0](*arguments, **named)

    return call


def _in_python(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        with _forced.held():
            return function(*arguments, **named)

    return call


class _Forced:
    """PyTorch's compiler switched off, for the whole process, as long as somebody asks for that."""

    def __init__(self) -> None:
        self._lock = fork_lock()
        self._count = 0
        self._stance: Any = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """A context in which it is off."""
        with self._lock:
            self._count += 1
            if self._count == 1 and hasattr(torch.compiler, "set_stance"):  # since PyTorch 2.6
                self._stance = torch.compiler.set_stance("force_eager")
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1
                if not self._count and self._stance is not None:
                    self._stance.__exit__(None, None, None)
                    self._stance = None


_forced = _Forced()
