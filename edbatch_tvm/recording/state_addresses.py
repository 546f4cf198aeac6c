"""Where PyTorch keeps what belongs to an element: ``native_core`` reads it there, if that is seen to be the same.

Every recorded call asks for some of it, and Python's functions for it make objects, which takes longer than a call.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _python_dispatch

from edbatch_tvm.recording.isolation import state

_C: Any = torch._C

_SYMBOLS = (
    ("c10", "_ZN3c108GradMode10is_enabledEv"),
    ("c10", "_ZN3c1013InferenceMode10is_enabledEv"),
    ("torch_cpu", "_ZN2at8autocast19is_autocast_enabledEN3c1010DeviceTypeE"),
    ("torch_cpu", "_ZN2at8autocast18get_autocast_dtypeEN3c1010DeviceTypeE"),
    ("torch_cpu", "_ZN2at8autocast25is_autocast_cache_enabledEv"),
    ("torch_cpu", "_ZN2at4impl22PythonTorchFunctionTLS18get_disabled_stateEv"),
    ("torch_cpu", "_ZN2at4impl22PythonTorchFunctionTLS9stack_lenEv"),
    ("c10", "_ZN3c104impl20TorchDispatchModeTLS9stack_lenEv"),
    ("torch_cpu", "_ZN2at9functorch20getDynamicLayerStackEv"),
)
"""PyTorch's libraries and functions in them, in the order of ``state.h``."""

_SEEN = ("2.13",)
"""Versions of PyTorch whose headers declare them so: symbols do not tell what a function returns."""

_libraries: dict[str, Any] = {}


def read_natively(module: Any) -> bool:
    """Let ``native_core`` read the state of PyTorch where it lies; whether it does: not with other versions."""
    try:
        if torch.__version__.rpartition(".")[0] not in _SEEN:
            raise OSError("another version of PyTorch")
        module.know_state(*_addresses())
        known = _is_the_same(module.torch_state)
    except (AttributeError, OSError, ValueError):
        known = False
    if not known:
        module.know_state((0,) * len(_SYMBOLS), 0)
    return known


def _addresses() -> tuple[tuple[int, ...], int]:
    """The functions, and the library that has the dispatch keys of a thread."""
    if not sys.platform.startswith("linux"):
        raise OSError("not known how to find variables of threads")
    folder = Path(torch.__file__).with_name("lib")
    for name in ("c10", "torch_cpu"):
        _libraries[name] = ctypes.CDLL(str(folder / f"lib{name}.so"))
    ctypes.c_uint64.in_dll(_libraries["c10"], "_ZN3c104impl26raw_local_dispatch_key_setE")  # is it there?
    functions = (getattr(_libraries[name], symbol) for name, symbol in _SYMBOLS)
    addresses = tuple(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions)
    return addresses, _libraries["c10"]._handle


def _is_the_same(read: Any) -> bool:
    """Whether what is read tells states apart that differ, and says what Python says."""
    before = read()
    if not _agrees(before):
        return False
    for number, change in enumerate(_changes()):
        with change():
            now = read()
            # Whether autocast is on is told by dispatch keys alone.
            if now == before or not _agrees(now) or (number == 0 and now[-2:] == before[-2:]):
                return False
        if read() != before:
            return False
    return True


def _agrees(read: tuple[int, ...]) -> bool:
    said = state()
    grad, inference, autocast, _, cached, functions, function_modes, dispatch_modes, transforms = read[:-2]
    return (bool(grad), bool(inference), bool(autocast), bool(cached)) == (
        said.grad,
        said.inference,
        said.autocast[0],
        said.autocast[2],
    ) and (not functions, function_modes, dispatch_modes, transforms > 0) == (
        said.functions,
        said.function_modes,
        said.dispatch_modes,
        said.transforms,
    )


def _changes() -> list[Callable[[], AbstractContextManager[Any]]]:
    """What makes contexts with another state, one for each part of it."""
    now = state()
    autocast, dtype, cached = now.autocast
    other = torch.float16 if dtype is torch.bfloat16 else torch.bfloat16
    excluded = now.excluded | _C.DispatchKeySet(_C.DispatchKey.Conjugate)
    push, pop = _C._push_on_torch_function_stack, _C._pop_torch_function_stack
    dispatch, nesting = _python_dispatch, _C._functorch
    return [
        lambda: _between(
            torch.set_autocast_enabled, ("cpu", not autocast), torch.set_autocast_enabled, "cpu", autocast
        ),
        lambda: _between(torch.set_autocast_dtype, ("cpu", other), torch.set_autocast_dtype, "cpu", dtype),
        lambda: _between(torch.set_autocast_cache_enabled, (not cached,), torch.set_autocast_cache_enabled, cached),
        lambda: _between(_C._set_grad_enabled, (not now.grad,), _C._set_grad_enabled, now.grad),
        lambda: torch.inference_mode(not now.inference),
        lambda: _C.DisableTorchFunction() if now.functions else _C._EnableTorchFunction(),
        lambda: _C._ForceDispatchKeyGuard(now.included, excluded),
        lambda: _between(dispatch._push_mode, (dispatch.TorchDispatchMode(),), dispatch._pop_mode),
        lambda: _between(push, (TorchFunctionMode(),), pop),
        lambda: _between(nesting._grad_increment_nesting, (), nesting._grad_decrement_nesting),
    ]


@contextmanager
def _between(begin: Any, given: tuple[Any, ...], end: Any, *again: Any) -> Iterator[None]:
    """A context at whose beginning `begin` is called, and at whose end `end`."""
    begin(*given)
    try:
        yield
    finally:
        end(*again)
