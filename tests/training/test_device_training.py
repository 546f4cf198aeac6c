"""Training on GPUs, by their kernels on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.models import WORKLOADS, get_workload
from edbatch_tvm.runtime.device_result import DeviceArray
from tests.training.reference import reference_gradients
from tests.training.test_backward import WEIGHTS, Chain, random_cotangents, require_equal, sentences


@pytest.fixture(scope="module")
def chain() -> Any:
    return eb.compile(Chain, WEIGHTS, training=True, target="cuda-emulated")


@pytest.mark.parametrize(
    "name", [name if name == "childsum-tree" else pytest.param(name, marks=pytest.mark.slow) for name in WORKLOADS]
)
def test_workload(name: str) -> None:
    """All outputs of two instances have random cotangents."""
    workload = get_workload(name)
    cells, weights = workload.cells(8), workload.weights(8)
    model = eb.compile(cells, weights, training=True, database="none", target="cuda-emulated")
    result = model(workload.generate(2, model.cells, seed=3))
    cotangents = random_cotangents(result, result.graph.outputs.tolist())
    gradients = result.backward(cotangents)
    require_equal(gradients, reference_gradients(cells, weights, result.graph, cotangents))


@pytest.mark.parametrize("piece", [3, 512])
def test_steps(chain: Any, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results stay on the device; a second minibatch, other weights, and cotangents in the form of the result."""
    monkeypatch.setattr("edbatch_tvm.training.device_sums.PIECE", piece)
    weights = {name: array.copy() for name, array in WEIGHTS.items()}
    for _ in range(2):
        result = chain(sentences(chain))
        assert isinstance(result[0], DeviceArray)
        assert all(float(np.asarray(loss)) > 0 for loss in result)
        gradients = result.backward([1.0, None, result[2].numpy()])
        values = result.graph.outputs.tolist()
        given = {values[0]: np.float32(1), values[2]: result[2].numpy()}
        require_equal(gradients, reference_gradients(Chain, weights, result.graph, given))
        for name in weights:
            weights[name] -= np.float32(0.2) * gradients[name]
        chain.refresh(weights)
    chain.refresh(WEIGHTS)
