"""Tensors without elements: as operands they are constants, and calls that return nothing else are not recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from edbatch_tvm.errors import CellError


class NoElements(CellError):
    """A tensor without elements where a value of the graph is needed."""

    def __init__(self) -> None:
        super().__init__("a tensor without elements")


@dataclass(frozen=True)
class EmptyResult:
    """What calls of one kind return, of which no tensor has elements.

    Attributes
    ----------
    returned : callable
        Makes it; its argument is the list of tensors with elements, which is empty.
    """

    returned: Callable[[list[Any]], Any]


def are_always_empty(program: Any, places: Sequence[int]) -> bool:
    """Whether outputs of an exported program have no elements, whatever the values of its inputs are.

    The shape of a selection depends on values, and export gives it a symbol; so does a number of rows.
    """
    outputs = program.graph.output_node().args[0]
    shapes = [outputs[place].meta["val"].shape for place in places]
    return all(any(type(extent) is int and extent == 0 for extent in shape) for shape in shapes)


def as_new(leaf: Any) -> Any:
    """What every call returns anew in the place of a result without elements; anything but a tensor stays."""
    return torch.empty_like(leaf) if isinstance(leaf, torch.Tensor) else leaf
