"""Which samples of PyTorch's operator database a cell can express.

A cell is a pure function of tensors of fixed shapes. A sample counts if all of this holds:

- it is of float32, takes at least one float32 tensor and only strided tensors, and returns at least one tensor;
- neither an input nor a result is complex, sparse, nested or quantized;
- the call does not draw random numbers, return memory nobody wrote, or change an input (tags and versions of PyTorch);
- the shapes of its results do not depend on values (tags ``dynamic_output_shape``, ``data_dependent_output``);
- no tensor in it is without elements: values of cells have sizes of 1 and more;
- what ``torch.export`` makes of it consists of *core* ATen operators: those PyTorch asks every backend to have
  (``torch.Tag.core``). Factorisations of matrices, Fourier transforms and special functions that PyTorch does not
  decompose are none.

Samples that do not count are tried as well, fewer of them: they must be equal or refused like all others.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

PLAIN = (torch.float32, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)

NO_OPERATORS = (operator.getitem, torch.ops.aten._assert_tensor_metadata.default)
"""What stands in exported programs beside operators."""


NO_ELEMENTS = "a tensor without elements"


class _Calls(TorchDispatchMode):
    """The ATen operators that a call runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.seen.append(function)
        return function(*arguments, **(named or {}))


def outside_by_running(call: Callable[[], Any], inputs: Sequence[torch.Tensor]) -> str:
    """Why a sample is none that a cell can express, as far as running it shows; empty if nothing speaks against it."""
    if not any(tensor.dtype == torch.float32 for tensor in inputs):
        return "takes no float32 tensor"
    if not all(_plain(tensor) for tensor in inputs):
        return "takes tensors that are complex, half, sparse or quantized"
    versions = [tensor._version for tensor in inputs]
    with _Calls() as calls:
        results = [leaf for leaf in _pytree.tree_leaves(call()) if isinstance(leaf, torch.Tensor)]
    if [tensor._version for tensor in inputs] != versions:
        return "changes its input"
    if not results:
        return "returns no tensor"
    if any(tensor.numel() == 0 for tensor in (*inputs, *results)):
        return NO_ELEMENTS
    if not all(_plain(tensor) for tensor in results):
        return "returns tensors that are complex, half, sparse or quantized"
    tags = {tag for function in calls.seen for tag in function.tags}
    if torch.Tag.nondeterministic_seeded in tags:
        return "draws random numbers"
    if torch.Tag.dynamic_output_shape in tags or torch.Tag.data_dependent_output in tags:
        return "the shape of the result or the path of the call depends on values"
    if calls.seen and all("empty" in function.name() for function in calls.seen):
        return "returns memory nobody wrote"
    return ""


def outside_by_export(program: Any) -> str:
    """Why an exported sample is none that a cell can express: no core ATen operator, a size of 0."""
    for node in program.graph.nodes:
        called = node.op == "call_function" and node.target not in NO_OPERATORS
        if called and torch.Tag.core not in getattr(node.target, "tags", ()):
            return f"no core ATen operator: {str(node.target).removesuffix('.default')}"
    values = [leaf for node in program.graph.nodes for leaf in _pytree.tree_leaves(node.meta.get("val"))]
    if any(isinstance(value, torch.Tensor) and 0 in value.shape for value in values):
        return NO_ELEMENTS
    return ""


def _plain(tensor: torch.Tensor) -> bool:
    return type(tensor) in (torch.Tensor, torch.nn.Parameter) and (
        tensor.layout == torch.strided and tensor.dtype in PLAIN and not tensor.is_nested
    )
