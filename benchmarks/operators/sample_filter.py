"""Which samples of PyTorch's operator database a cell can express.

A cell is a pure function of tensors of fixed shapes. A sample counts if all of this holds:

- PyTorch itself computes it on the CPU, from tensors that own their memory;
- no value that it casts to integers lies outside their range, NaN included: C++ leaves the result of that open, and
  PyTorch's own differs between scalar and vector code;
- it is of float32, takes at least one float32 tensor and only strided tensors, and returns at least one tensor;
- neither an input nor a result is complex, sparse, nested or quantized;
- the call does not draw random numbers, return memory nobody wrote, or change an input (tags and versions of PyTorch);
- the shapes of its results do not depend on values (tags ``dynamic_output_shape``, ``data_dependent_output``);
- no tensor in it is without elements: values of cells have sizes of 1 and more;
- what ``torch.export`` makes of it consists of *core* ATen operators: those PyTorch asks every backend to have
  (``torch.Tag.core``). Factorisations of matrices, Fourier transforms and special functions that PyTorch does not
  decompose are none.

Samples that do not count are tried as well, fewer of them: they must be equal or refused like all others. Those of the
first two rules have no right value and are not tried; the second leaves out single inputs of a sample, too.
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
RAISES = "PyTorch itself raises"
UNDEFINED_CAST = "casts a value to integers that do not have it"
NO_VALUE = (RAISES, UNDEFINED_CAST)
"""Reasons of samples that have no right value."""


class _Calls(TorchDispatchMode):
    """The ATen operators that a call runs, and whether one of them casts what the new dtype does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []
        self.undefined_cast = False

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.seen.append(function)
        results = function(*arguments, **(named or {}))
        to = [leaf.dtype for leaf in _pytree.tree_leaves(results) if isinstance(leaf, torch.Tensor)]
        if "dtype" in (named or {}) or "copy" in function.name():
            source = next((leaf for leaf in reversed(arguments) if isinstance(leaf, torch.Tensor)), None)
            self.undefined_cast |= source is not None and bool(to) and _out_of_range(source, to[0])
        return results


def _out_of_range(values: torch.Tensor, dtype: torch.dtype) -> bool:
    """True if `values` are floating-point numbers and one of them, truncated, is out of the range of `dtype`."""
    if not values.is_floating_point() or dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
        return False
    if values.layout != torch.strided:
        return False
    limits = torch.iinfo(dtype)
    cut = values.detach().double().trunc()
    # 2.0 ** 63 is float64, the largest int64 is not.
    return not bool(((cut >= float(limits.min)) & (cut < float(limits.max) + (dtype != torch.int64))).all())


def has_undefined_cast(call: Callable[[], Any]) -> bool:
    """True if `call` casts a floating-point number to integers that do not have it."""
    with _Calls() as calls:
        call()
    return calls.undefined_cast


def outside_by_running(call: Callable[[], Any], inputs: Sequence[torch.Tensor]) -> str:
    """Why a sample is none that a cell can express, as far as running it shows; empty if nothing speaks against it."""
    if not any(tensor.dtype == torch.float32 for tensor in inputs):
        return "takes no float32 tensor"
    if not all(_plain(tensor) for tensor in inputs):
        return "takes tensors that are complex, half, sparse or quantized"
    versions = [tensor._version for tensor in inputs]
    try:
        with _Calls() as calls:
            results = [leaf for leaf in _pytree.tree_leaves(call()) if isinstance(leaf, torch.Tensor)]
    except (RuntimeError, AssertionError) as error:  # nothing but PyTorch ran
        return f"{RAISES}: {str(error).splitlines()[0][:100]}"
    if calls.undefined_cast:
        return UNDEFINED_CAST
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
