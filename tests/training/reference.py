"""Gradients of a minibatch by PyTorch's autograd, node by node, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from tvm import IRModule

from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.graph.instance import FIRST_EXTERNAL, ZERO
from relay_ext.signature import cell_functions, input_params, weight_params
from tests.relay_ext.relax_in_torch import evaluate


def reference_gradients(
    mod: IRModule, weights: Mapping[str, Any], graph: InstanceGraph, cotangents: Mapping[int, np.ndarray]
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Gradients of all weights and of the external rows, laid out as those of the graph.

    Cells of the graph may return more than those of `mod`, after what these return.
    """
    functions = cell_functions(mod)
    shared = {
        name: torch.tensor(np.asarray(array), dtype=torch.float64).requires_grad_() for name, array in weights.items()
    }
    external = [_wide(rows) for rows in graph.external_data]
    assert graph.signature is not None
    seen = dict.fromkeys(range(len(graph.signature)), 0)
    values: dict[int, torch.Tensor] = {}

    def fetch(value: int, spec: Any) -> torch.Tensor:
        if value == ZERO:
            return torch.zeros(spec.shape, dtype=torch.float64)
        if value <= FIRST_EXTERNAL:
            number = FIRST_EXTERNAL - value
            return external[graph.external_spec[number]][graph.external_row[number]]
        return values[value]

    for node, type_id in enumerate(graph.node_type.tolist()):
        cell = graph.signature[type_id]
        entries = graph.operand_value[graph.operand_ptr[node] : graph.operand_ptr[node + 1]].tolist()
        rows = (len(entries) - cell.fixed_arity) // max(cell.variadic_count, 1)
        arguments: dict[str, Any] = {}
        for operand in cell.operands:
            if operand.variadic:
                own, entries = entries[:rows], entries[rows:]
                parts = [fetch(value, operand.spec) for value in own]
                empty = torch.zeros((0, *operand.spec.shape), dtype=torch.float64)
                arguments[operand.name] = torch.stack(parts) if parts else empty
            else:
                arguments[operand.name] = fetch(entries.pop(0), operand.spec)
        for attribute in cell.attributes:
            arguments[attribute.name] = torch.as_tensor(
                np.array(graph.attributes[type_id, attribute.name][seen[type_id]])
            )
        seen[type_id] += 1
        function = functions[cell.name]
        assert {param.name for param in input_params(function)} == set(arguments)
        arguments |= {param.name: shared[param.name] for param in weight_params(function)}
        for slot, out in enumerate(evaluate(function, arguments)):
            values[node * graph.stride + slot] = out
    sources = [*shared.values(), *external]
    parts = [(values[value] * torch.as_tensor(one, dtype=torch.float64)).sum() for value, one in cotangents.items()]
    total = torch.stack(parts).sum()
    found = torch.autograd.grad(total, sources, allow_unused=True)
    arrays = [
        np.zeros(source.shape) if one is None else one.numpy() for one, source in zip(found, sources, strict=True)
    ]
    return dict(zip(shared, arrays, strict=False)), arrays[len(shared) :]


def _wide(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array, dtype=torch.float64).requires_grad_()
