"""The model's own code of a cell, on flat inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from edbatch_tvm.recording.arguments import CallPlan
from edbatch_tvm.recording.masked_code import MaskedCode
from edbatch_tvm.recording.module_attributes import REBINDING, Attribute, call_with_attributes
from relay_ext.module_structure import module_structure


class CellModule(torch.nn.Module):
    """Code of a model as a module whose inputs and outputs are flat tensors, for ``torch.export``.

    Parameters
    ----------
    function : callable
        A submodule, a bound method or a tensor function.
    owner : torch.nn.Module or None
        What the parameters that `function` uses belong to.
    plan : CallPlan
    named : tuple of str
        Names of the last arguments, if they are given by name.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        owner: torch.nn.Module | None,
        plan: CallPlan,
        named: tuple[str, ...] = (),
        reads: tuple[Attribute, ...] = (),
        root: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.reads = reads
        # Where attributes are that the elements have and the model has not.
        object.__setattr__(self, "root", root)
        self.owner = owner
        # ``torch.export`` gives other objects for modules that are looked up, where the model has one in two places.
        object.__setattr__(self, "_plain_owner", owner)
        self.taken = torch.nn.ParameterList(plan.weights)
        self.given = torch.nn.ModuleList(plan.modules)
        object.__setattr__(self, "function", function)
        self.plan = plan
        self.named = named
        self.training = owner.training if owner is not None else False
        self.with_elements: list[int] | None = None
        """Which of the tensors that the call returns have elements; None: all."""
        self.program: Any = None
        """The exported program, until the cell is compiled."""

    def structure(self) -> Any:
        """Equal for code that exports to one program; the rest of the model (`root`) does not count."""
        # Which values a call has does not matter, only what kind of values.
        inputs = [replace(entry, example=_kind_of(entry.example)) for entry in self.plan.inputs]
        plan = replace(self.plan, inputs=inputs)
        parts = (self.function, self.owner, self.taken, plan, self.named, self.reads, self.training)
        return module_structure(torch, *parts)

    def result(self, flat: Sequence[Any], as_they_are: bool = False) -> Any:
        """What the call returns, in its own structure."""
        arguments = self.plan.arguments(flat, list(self.taken), as_they_are)
        plain = len(arguments) - len(self.named)
        if self.owner is None:
            return self.function(*arguments[:plain], **dict(zip(self.named, arguments[plain:], strict=True)))
        plain -= len(self.reads)
        attributes = dict(zip(self.reads, arguments[plain:], strict=True))
        owner = self._plain_owner
        bound = bound_to(self.function, owner)
        return call_with_attributes(owner, lambda owner: bound(owner)(*arguments[:plain]), attributes)

    def forward(self, *flat: Any) -> tuple[torch.Tensor, ...]:
        """The tensors that the call returns, flat."""
        leaves = distinct(pytree.tree_leaves(self.result(flat)))
        if self.with_elements is not None:
            leaves = [leaves[place] for place in self.with_elements]
        return tuple(_encoded(leaf.reshape(-1), self.plan.dtype) for leaf in leaves)


class ShapedCode(torch.nn.Module):
    """The same code on inputs in their shapes; outputs keep theirs."""

    def __init__(self, code: CellModule) -> None:
        super().__init__()
        self.code = code

    def forward(self, *shaped: Any) -> tuple[torch.Tensor, ...]:
        """The tensors that the call returns."""
        return tuple(distinct(pytree.tree_leaves(self.code.result(shaped, as_they_are=True))))


def bound_to(function: Callable[..., Any], owner: torch.nn.Module) -> Callable[[torch.nn.Module], Callable[..., Any]]:
    """Makes a cell's code, a submodule or method of `owner`, that of a copy of `owner`."""
    if isinstance(function, MaskedCode):
        inner = bound_to(function.target, owner)
        return lambda copy: MaskedCode(inner(copy))
    if function is owner:
        return lambda copy: copy
    if getattr(function, "__self__", None) is owner:
        return lambda copy: function.__func__.__get__(copy)  # type: ignore[attr-defined]
    if not REBINDING.holds(function):
        return lambda copy: function
    paths = {id(module): path for path, module in owner.named_modules()}

    def of_copy(copy: torch.nn.Module) -> Any:
        """The function with the copy in the place of its owner, and so with parts of it."""
        return REBINDING.rebound(function, lambda one: copy.get_submodule(paths[id(one)]) if id(one) in paths else one)

    return of_copy


def _kind_of(example: Any) -> Any:
    """What of the value of an attribute the code depends on."""
    return (example.dtype, example.shape) if isinstance(example, torch.Tensor) else type(example)


def distinct(leaves: Sequence[Any]) -> list[torch.Tensor]:
    """The tensors among `leaves`, each once."""
    found: dict[int, torch.Tensor] = {}
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor):
            found.setdefault(id(leaf), leaf)
    return list(found.values())


def _encoded(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A tensor as the graph has it, whose values are of `dtype`."""
    return values if values.dtype is dtype else values.to(dtype)
