"""What belongs to an element: grad, inference and autocast mode, modes of PyTorch, and what its dispatcher knows.

PyTorch keeps all of it for a thread. It is put aside where an element waits, and back where it goes on.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.utils import _python_dispatch

_C: Any = torch._C


class State(NamedTuple):
    """The state of PyTorch in a thread."""

    grad: bool
    inference: bool
    autocast: tuple[Any, ...]
    included: Any
    excluded: Any
    functions: bool
    function_modes: int
    dispatch_modes: int
    transforms: bool


def state() -> State:
    """What it is now."""
    return State(
        _grad(),
        _inference(),
        (_autocast("cpu"), _autocast_dtype("cpu"), _autocast_cached()),
        _included(),
        _excluded(),
        _functions(),
        _function_modes(),
        _dispatch_modes(),
        _interpreters() is not None,
    )


def is_now(other: State) -> bool:
    """Whether the state is `other`: what :func:`state` compares, sooner."""
    return (
        _grad() is other.grad
        and _inference() is other.inference
        and _function_modes() == other.function_modes
        and _dispatch_modes() == other.dispatch_modes
        and _functions() is other.functions
        and (_interpreters() is not None) is other.transforms
        and (_autocast("cpu"), _autocast_dtype("cpu"), _autocast_cached()) == other.autocast
        and _included() == other.included
        and _excluded() == other.excluded
    )


_grad, _inference, _functions = _C.is_grad_enabled, _C.is_inference_mode_enabled, _C._is_torch_function_enabled
_function_modes, _dispatch_modes = _C._len_torch_function_stack, _C._len_torch_dispatch_stack
_interpreters = _C._functorch.peek_interpreter_stack
_autocast, _autocast_dtype = torch.is_autocast_enabled, torch.get_autocast_dtype
_autocast_cached = torch.is_autocast_cache_enabled
_included, _excluded = _C._dispatch_tls_local_include_set, _C._dispatch_tls_local_exclude_set

STATE_FUNCTIONS = {
    "is_grad_enabled": _grad,
    "is_inference": _inference,
    "function_modes": _function_modes,
    "dispatch_modes": _dispatch_modes,
    "functions_enabled": _functions,
    "interpreters": _interpreters,
    "autocast": _autocast,
    "autocast_dtype": _autocast_dtype,
    "autocast_cached": _autocast_cached,
    "included": _included,
    "excluded": _excluded,
}
"""What ``native_core`` calls for the same, by its names for it."""


@contextmanager
def switched_to(other: State) -> Iterator[None]:
    """A context with the `other` state, in which another element may run; then all is as it was."""
    own = state()
    if own == other:
        yield
        return
    with ExitStack() as stack:
        functions = [_C._pop_torch_function_stack() for _ in range(own.function_modes - other.function_modes)]
        dispatched = [_python_dispatch._pop_mode() for _ in range(own.dispatch_modes - other.dispatch_modes)]
        autocast = own.autocast
        if other.autocast != autocast:
            _set_autocast(other.autocast)
        if own.inference != other.inference:
            stack.enter_context(_C._InferenceMode(other.inference))
        stack.enter_context(_C._ForceDispatchKeyGuard(other.included, other.excluded))
        if not own.functions:
            stack.enter_context(_C._EnableTorchFunction())
        _C._set_grad_enabled(other.grad)
        try:
            yield
        finally:
            _C._set_grad_enabled(own.grad)
            stack.close()
            if other.autocast != autocast:
                _set_autocast(autocast)
            for mode in reversed(dispatched):
                _python_dispatch._push_mode(mode)
            for mode in reversed(functions):
                _C._push_on_torch_function_stack(mode)


def outside_of_transforms() -> AbstractContextManager[Any]:
    """A context that no transform of ``torch.func`` sees."""
    return nullcontext() if _interpreters() is None else temporarily_clear_interpreter_stack()


def outside_of_saved_tensor_hooks() -> AbstractContextManager[Any]:
    """A context in which tensors are saved for gradients as they are: the hooks of an element see none."""
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is None:
        return nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(_as_it_is, _as_it_is)


def _as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _set_autocast(given: tuple[Any, ...]) -> None:
    enabled, dtype, cached = given
    torch.set_autocast_enabled("cpu", enabled)
    torch.set_autocast_dtype("cpu", dtype)
    torch.set_autocast_cache_enabled(cached)


OF_PYTORCH: set[contextvars.ContextVar[Any]] = set()
"""Context variables that exports of PyTorch have made."""


@contextmanager
def context_variables_kept() -> Iterator[None]:
    """A context after which context variables are what they were: exports set some of PyTorch's."""
    before = contextvars.copy_context()
    try:
        yield
    finally:
        for variable, value in contextvars.copy_context().items():
            if variable not in before:
                OF_PYTORCH.add(variable)
            elif before[variable] is not value:
                variable.set(before[variable])


@contextmanager
def restored() -> Iterator[None]:
    """A context that leaves the state of PyTorch as it finds it, whatever code inside has set and not reset."""
    own = state()
    try:
        yield
    finally:
        restore(own)


def restore(own: State) -> None:
    """Let the state be `own`, whatever code has set and not reset."""
    now = state()
    if now != own:
        for _ in range(now.function_modes - own.function_modes):
            _C._pop_torch_function_stack()
        for _ in range(now.dispatch_modes - own.dispatch_modes):
            _python_dispatch._pop_mode()
        if now.autocast != own.autocast:
            _set_autocast(own.autocast)
        _C._set_grad_enabled(own.grad)
