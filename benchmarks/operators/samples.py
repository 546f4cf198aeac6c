"""Samples of PyTorch's operator database as modules of tensors, and inputs with special values in them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree

LARGEST = 512
"""Elements of the largest tensor of a sample; where an operator has no sample so small, its smallest are taken."""

VARIANTS: dict[str, tuple[float, tuple[float, ...]]] = {
    "plain": (0.0, ()),
    "zeros, large, small": (0.4, (0.0, -0.0, 1.0, -1.0, 1e6, -1e6, 1e15, -1e15, 1e-10, -1e-10, 1e-30, -1e-30)),
    "infinities": (0.2, (float("inf"), float("-inf"))),
    "NaN": (0.15, (float("nan"),)),
    "all of them": (0.6, (float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1e15, -1e-30, -1.0)),
    "all -inf": (1.0, (float("-inf"),)),
}
"""Inputs of every sample: the share of elements that is replaced, and by what."""


class Call(torch.nn.Module):
    """One call of an operator: tensors are its inputs, everything else is fixed; results as float32."""

    def __init__(self, function: Any, leaves: list[Any], tree: Any) -> None:
        super().__init__()
        self.function, self.tree = function, tree
        self.at = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        self.leaves = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.results(inputs)
        return tuple(one if one.dtype == torch.float32 else one.to(torch.float32) for one in found)

    def results(self, inputs: Any, wide: bool = False) -> list[torch.Tensor]:
        """The tensors that the operator returns; with `wide`, float32 among its arguments is float64."""
        leaves = [torch.float64 if wide and leaf == torch.float32 else leaf for leaf in self.leaves]
        for place, tensor in zip(self.at, inputs, strict=True):
            leaves[place] = tensor.double() if wide and tensor.dtype == torch.float32 else tensor
        arguments, named = _pytree.tree_unflatten(leaves, self.tree)
        found = _pytree.tree_leaves(self.function(*arguments, **named))
        return [leaf for leaf in found if isinstance(leaf, torch.Tensor)]


@dataclass
class Sample:
    """One sample: the module and its inputs."""

    module: Call
    inputs: tuple[torch.Tensor, ...]

    @property
    def size(self) -> int:
        """Elements of the largest input."""
        return max((tensor.numel() for tensor in self.inputs), default=0)

    def __str__(self) -> str:
        shown = [f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}" for tensor in self.inputs]
        return ", ".join([*shown, *(repr(leaf) for leaf in self.module.leaves if leaf is not None)])[:200]


def operators() -> dict[str, Any]:
    """The entries of the database that support float32 on the CPU, by name."""
    return {entry.full_name: entry for entry in op_db if entry.supports_dtype(torch.float32, "cpu")}


def samples(entry: Any) -> list[Sample]:
    """All float32 samples of an operator that are small enough."""
    torch.manual_seed(zlib.crc32(entry.full_name.encode()))
    found = []
    for given in entry.sample_inputs("cpu", torch.float32, requires_grad=False):
        leaves, tree = _pytree.tree_flatten(((given.input, *given.args), dict(given.kwargs)))
        inputs = tuple(_owned(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor))
        found.append(Sample(Call(entry.op, leaves, tree), inputs))
    small = [sample for sample in found if sample.size <= LARGEST]
    return small or sorted(found, key=lambda sample: sample.size)[:3]


def spread(found: list[Sample], count: int) -> list[tuple[int, Sample]]:
    """`count` of the samples, evenly spread over all, with their numbers; all for a count of 0."""
    if not count or len(found) <= count:
        return list(enumerate(found))
    return [(int(at), found[int(at)]) for at in np.linspace(0, len(found) - 1, count).round()]


def variants(sample: Sample, seed: int) -> Iterator[tuple[str, tuple[torch.Tensor, ...]]]:
    """The inputs of a sample, first as they are, then with special values among those of float32."""
    generator = np.random.default_rng(seed)
    for name, (share, values) in VARIANTS.items():
        inputs = []
        for tensor in sample.inputs:
            if tensor.dtype == torch.float32 and values and tensor.numel():
                array = tensor.numpy().copy()
                chosen = generator.random(array.shape) < share
                array = np.where(chosen, generator.choice(np.float32(values), array.shape), array)
                tensor = torch.from_numpy(np.asarray(array, "float32"))
            inputs.append(tensor)
        yield name, tuple(inputs)


def _owned(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        return tensor
    return tensor.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
