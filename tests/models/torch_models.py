"""What the tests of references against torch share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.graph import InstanceGraph
from tests.models.conftest import Case

torch = pytest.importorskip("torch")


def outputs(case: Case, graph: InstanceGraph) -> np.ndarray:
    """Declared outputs of `graph` by the reference."""
    results = run_reference(graph, case.workload.reference, case.weights)
    nodes, slots = np.divmod(graph.outputs, graph.stride)
    return np.stack([results[node][slot] for node, slot in zip(nodes, slots, strict=True)])


def tensors(case: Case) -> dict[str, Any]:
    return {name: torch.tensor(array, dtype=torch.float64) for name, array in case.weights.items()}


def torch_lstm(w: dict[str, Any], layers: list[tuple[str, str]], make: Callable[[int], Any]) -> Any:
    """A torch LSTM (gates i, f, g, o) with our weights (gates i, f, o, g), by (matrix, bias) of each layer."""
    hidden = w[layers[0][1]].shape[0] // 4
    order = torch.cat([torch.arange(hidden) + gate * hidden for gate in (0, 1, 3, 2)])
    module = make(hidden).double()
    for layer, (matrix, bias) in enumerate(layers):
        suffix = f"_l{layer}" if isinstance(module, torch.nn.LSTM) else ""
        values = {
            "weight_ih": w[matrix][:hidden, order].T,
            "weight_hh": w[matrix][hidden:, order].T,
            "bias_ih": w[bias][order],
            "bias_hh": torch.zeros(4 * hidden, dtype=torch.float64),
        }
        for name, value in values.items():
            getattr(module, name + suffix).data = value.contiguous()
    return module
