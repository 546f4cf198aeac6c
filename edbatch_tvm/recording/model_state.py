"""What compiled cells depend on in a model."""

from __future__ import annotations

from typing import Any

import torch

from edbatch_tvm.errors import RecordingError


def structure_of(model: torch.nn.Module) -> tuple[Any, ...]:
    """What cells are compiled for: equal where compiled cells fit, but for the numbers in buffers."""
    tensors = (*model.parameters(), *model.buffers())
    return (
        torch.get_default_dtype(),
        tuple((id(one), one.shape, one.dtype, one.device) for one in tensors),
        tuple((id(one), one.training) for one in model.modules()),
    )


def dtype_of(model: torch.nn.Module) -> torch.dtype:
    """What the values of a model's cells are: float64 if all parameters are, else float32.

    Without parameters, the buffers count, and without these the default dtype.
    """
    for tensors in (model.parameters(), model.buffers()):
        dtypes = {one.dtype for one in tensors if one.is_floating_point()}
        if dtypes:
            return torch.float64 if dtypes == {torch.float64} else torch.float32
    return torch.float64 if torch.get_default_dtype() is torch.float64 else torch.float32


def places_of(model: torch.nn.Module) -> list[tuple[int, int]]:
    """Where weights lie, and how often they were changed in place."""
    return [(one.data_ptr(), _version(one)) for one in model.parameters()]


def buffers_of(model: torch.nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The buffers of a model, which are constants of cells, and copies of them."""
    return [(buffer, buffer.detach().clone()) for buffer in model.buffers()]


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def trains(model: torch.nn.Module) -> bool:
    """Whether gradients are recorded for a model where it is called."""
    return torch.is_grad_enabled() and any(one.requires_grad for one in model.parameters())


def check_no_transform() -> None:
    """Check that no transform of ``torch.func`` is active where a batched model is called.

    Raises
    ------
    RecordingError
    """
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise RecordingError(
            "a batched model inside of a transform of torch.func (grad, vmap, jvp, ...)",
            "a call outside of them",
            "use backward() or torch.autograd.grad for gradients, and a list of elements in place of vmap",
        )


def check_device(model: torch.nn.Module) -> None:
    """Check that a model is where it can be run.

    Raises
    ------
    RecordingError
    """
    for name, one in model.named_parameters():
        if not one.is_cpu:
            kind = type(model).__name__
            raise RecordingError(f"parameter {name!r} of {kind} is on {one.device}", "a model on cpu", "call .cpu()")
