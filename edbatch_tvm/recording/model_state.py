"""What compiled cells depend on in a model."""

from __future__ import annotations

from collections.abc import Set
from typing import Any, NamedTuple

import torch
from torch.autograd import forward_ad
from torch.nn.parameter import is_lazy

from edbatch_tvm.errors import RecordingError


class ModelParts(NamedTuple):
    """The modules of a model, and their parameters and buffers: each once, in the order of the modules.

    `inputs` is whether gradients of arguments are asked for.
    """

    modules: list[torch.nn.Module]
    parameters: list[torch.Tensor]
    buffers: list[torch.Tensor]
    inputs: bool = False


def parts_of(model: torch.nn.Module, moving: Set[tuple[int, str]] = frozenset()) -> ModelParts:
    """What ``modules()``, ``parameters()`` and ``buffers()`` give, in one walk: a call asks for all of it.

    `moving` buffers, by the id of a module and a name, are left out.
    """
    modules: dict[int, torch.nn.Module] = {}
    parameters: dict[int, torch.Tensor] = {}
    buffers: dict[int, torch.Tensor] = {}
    waiting = [model]
    while waiting:
        module = waiting.pop()
        if id(module) in modules:
            continue
        modules[id(module)] = module
        for one in module._parameters.values():
            if one is not None:
                parameters[id(one)] = one
        for name, one in module._buffers.items():
            if one is not None and (id(module), name) not in moving:
                buffers[id(one)] = one
        if module._modules:
            waiting += [one for one in reversed(module._modules.values()) if one is not None]
    return ModelParts(list(modules.values()), list(parameters.values()), list(buffers.values()))


def structure_of(parts: ModelParts) -> tuple[Any, ...]:
    """What cells are compiled for: equal where compiled cells fit, but for the numbers in buffers."""
    tensors = (*parts.parameters, *parts.buffers)
    return (
        torch.get_default_dtype(),
        tuple([(id(one), None if is_lazy(one) else one.shape, one.dtype, one.device) for one in tensors]),
        tuple([(id(one), one.training) for one in parts.modules]),
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


def places_of(parts: ModelParts) -> list[tuple[int, int]]:
    """Where weights lie, and how often they were changed in place."""
    return [(one.data_ptr(), _version(one)) for one in parts.parameters if not is_lazy(one)]


def is_uninitialised(model: torch.nn.Module) -> bool:
    """Whether lazy modules wait for a first call, which gives their parameters and buffers a shape."""
    return any(map(is_lazy, (*model.parameters(), *model.buffers())))


def buffers_of(parts: ModelParts) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The buffers of a model, which are constants of cells, and copies of them."""
    return [(buffer, buffer.detach().clone()) for buffer in parts.buffers if not is_lazy(buffer)]


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def trains(parts: ModelParts) -> bool:
    """Whether gradients are recorded for a model where it is called."""
    return torch.is_grad_enabled() and (parts.inputs or any(one.requires_grad for one in parts.parameters))


def check_no_transform() -> None:
    """Check that no transform of ``torch.func`` is active where a batched model is called, nor forward-mode gradients.

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
    if forward_ad._current_level >= 0:
        raise RecordingError(
            "a batched model inside of forward_ad.dual_level()",
            "a call outside of it",
            "use backward() or torch.autograd.grad for gradients, or the model itself",
        )


def check_device(model: torch.nn.Module, parts: ModelParts) -> None:
    """Check that a model is where it can be run.

    Raises
    ------
    RecordingError
    """
    if all(one.is_cpu for one in parts.parameters):
        return
    for name, one in model.named_parameters():
        if not one.is_cpu:
            kind = type(model).__name__
            raise RecordingError(f"parameter {name!r} of {kind} is on {one.device}", "a model on cpu", "call .cpu()")
