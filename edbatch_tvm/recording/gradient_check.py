"""Whether a cell's adjoint is what PyTorch's autograd makes of the model's own code.

The exported program of a cell has no trace of ``detach``, ``no_grad`` and functions with a backward pass of their own.
So a cell is differentiated both ways, once, on random numbers, before it trains; one that differs is not recorded, and
PyTorch runs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from edbatch_tvm.compiler import compile_model
from edbatch_tvm.errors import CellError
from edbatch_tvm.graph.instance import FIRST_EXTERNAL
from edbatch_tvm.recording.arguments import EXAMPLE_ROWS
from edbatch_tvm.recording.parameter_tables import Table, gradient_of_weight
from edbatch_tvm.recording.specialise import Cell
from edbatch_tvm.runtime import Model
from edbatch_tvm.training import TrainingResult
from edbatch_tvm.training.gradients import Gradients
from relay_ext.importer import WeightNames, imported_module

_MODULES: Any = torch.nn.modules.module

_TOLERANCE = 1e-3
"""Largest difference, relative to the largest gradient of its kind: both may compute in float32."""


def check_gradients(cell: Cell, names: WeightNames, tables: Mapping[int, Table]) -> None:
    """Compare the adjoint of a cell with autograd.

    Raises
    ------
    CellError
        If they differ, or the cell has no adjoint.
    """
    module, params = imported_module({cell.name: cell.function}, names)
    # Interpreted: it is differentiated as cells that are compiled are, and nothing has to be compiled.
    model = compile_model(module, params, target="numpy", training=True)
    weights = {name: weight for name, weight in params.items() if weight.requires_grad}
    inputs = cell.code.plan.inputs
    flat = [entry.random(EXAMPLE_ROWS) for entry in inputs]
    _compare(cell, model, flat, weights, tables)
    for name, weight in weights.items():
        padding = tables[id(weight)].padding if id(weight) in tables else -1
        if padding >= 0:
            attributes = [entry.example is not None for entry in inputs]
            flat = [torch.full_like(one, padding) if own else one for own, one in zip(attributes, flat, strict=True)]
            _compare(cell, model, flat, {name: weight}, tables)


def _compare(
    cell: Cell,
    model: Model,
    flat: Sequence[torch.Tensor],
    weights: Mapping[str, torch.Tensor],
    tables: Mapping[int, Table],
) -> None:
    inputs = cell.code.plan.inputs
    operands = [value for entry, value in zip(inputs, flat, strict=True) if entry.example is None]
    attributes = [value.numpy() for entry, value in zip(inputs, flat, strict=True) if entry.example is not None]
    names = [attribute.name for attribute in model.signature[cell.name].attributes]
    builder = model.builder()
    given = [value.numpy() for value in operands]
    value = builder.call(cell.name, *given, **dict(zip(names, attributes, strict=True)))
    result = model([builder.finish(list(value) if isinstance(value, tuple) else [value])])
    assert isinstance(result, TrainingResult)
    generator = torch.Generator().manual_seed(0)
    cotangents = [
        torch.randn(array.shape, generator=generator, dtype=cell.code.plan.dtype) * spec.floats
        for array, spec in zip(result[0], cell.outputs, strict=True)
    ]
    gradients = result.backward([[one.numpy() for one in cotangents]])

    wanted = _by_autograd(cell, flat, list(weights.values()), cotangents)
    found = [torch.from_numpy(one) for one in _of_operands(result, gradients, operands)]
    found += [gradient_of_weight(gradients, name, weight, tables).to_dense() for name, weight in weights.items()]
    what = [*(f"argument {place}" for place in range(len(operands))), *(f"parameter {name!r}" for name in weights)]
    floats = [*(entry.spec.floats for entry in inputs if entry.example is None), *[True] * len(weights)]
    for name, one, other, counts in zip(what, found, wanted, floats, strict=True):
        if counts and not _close(one, other):
            raise CellError(
                f"the gradient of cell {cell.name!r} for {name} is not what PyTorch computes",
                "code without detach(), no_grad() and functions with a backward pass of their own",
                "leave these to code outside the cell",
            )


@contextmanager
def _no_backward_hooks(cell: Cell) -> Iterator[None]:
    """A context in which a module that has hooks of its backward pass is an error when it is called."""
    of_all = (*_MODULES._global_backward_hooks.values(), *_MODULES._global_backward_pre_hooks.values())

    def refuse(module: torch.nn.Module, _: Any) -> None:
        if of_all or module._backward_hooks or module._backward_pre_hooks:
            raise CellError(
                f"cell {cell.name!r} calls a {type(module).__name__} with hooks of its backward pass",
                "modules without register_full_backward_hook and register_full_backward_pre_hook",
                "leave these to code outside the cell",
            )

    if not of_all and not any(one._backward_hooks or one._backward_pre_hooks for one in cell.code.modules()):
        yield
        return
    handle = _MODULES.register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


def _by_autograd(
    cell: Cell, flat: Sequence[torch.Tensor], weights: list[torch.Tensor], cotangents: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """The gradients of operands, then of weights, by the model's own code."""
    inputs = cell.code.plan.inputs
    with torch.enable_grad():
        own = [value.clone().requires_grad_(entry.example is None) for entry, value in zip(inputs, flat, strict=True)]
        wanted = [value for entry, value in zip(inputs, own, strict=True) if entry.example is None] + weights
        given = [entry.example if type(entry.example) is int else one for entry, one in zip(inputs, own, strict=True)]
        with _no_backward_hooks(cell):
            outputs = cell.code(*given)
        pairs = [(one, other) for one, other in zip(outputs, cotangents, strict=True) if one.requires_grad]
        if not pairs:
            return [torch.zeros_like(one) for one in wanted]
        found = torch.autograd.grad(
            [one for one, _ in pairs], wanted, [other.reshape(one.shape) for one, other in pairs], allow_unused=True
        )
    return [
        torch.zeros_like(of) if one is None else one.to_dense().detach() for one, of in zip(found, wanted, strict=True)
    ]


def _of_operands(result: TrainingResult, gradients: Gradients, operands: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """The gradients of the operands of the one node of a graph."""
    rows: dict[int, np.ndarray] = {}
    for sums in gradients.external_sums.values():
        rows.update(zip(sums.numbers.tolist(), sums.rows, strict=True))
    entries = iter((FIRST_EXTERNAL - result.graph.operand_value).tolist())
    found = []
    for operand in operands:
        parts = operand.numpy() if operand.dim() > 1 else operand.numpy()[None]
        own = [rows.get(entry, np.zeros_like(part)) for part, entry in zip(parts, entries, strict=False)]
        found.append(np.stack([one.reshape(part.shape) for one, part in zip(own, parts, strict=True)]))
    return found


def _close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    found = found.reshape(wanted.shape)
    finite = wanted.isfinite()
    if not torch.equal(found.isfinite(), finite):
        return False
    scale = wanted[finite].abs().max().clamp(min=1e-3) if finite.any() else torch.ones(())
    return bool(((found - wanted)[finite].abs() <= _TOLERANCE * scale).all())
