"""A minibatch of each workload with what the reference says of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.graph import InstanceGraph, merge
from edbatch_tvm.models import WORKLOADS, get_workload
from relay_ext.signature import signature_of

HIDDEN = 6


@dataclass(frozen=True)
class Example:
    name: str
    graph: InstanceGraph
    weights: dict[str, np.ndarray]
    expected: np.ndarray

    def check(self, outputs: np.ndarray) -> None:
        assert outputs.shape == self.expected.shape
        assert np.abs(outputs - self.expected).max() <= 1e-5 * np.abs(self.expected).max()


@cache
def example(name: str) -> Example:
    workload = get_workload(name)
    graph = merge(workload.generate(2, signature_of(workload.cells(HIDDEN)), 1))
    weights = workload.weights(HIDDEN, seed=2)
    rows = run_reference(graph, workload.reference, weights)
    expected = np.stack([rows[value // graph.stride][value % graph.stride] for value in graph.outputs.tolist()])
    return Example(name, graph, weights, expected)


@pytest.fixture(params=WORKLOADS)
def every(request: pytest.FixtureRequest) -> Example:
    """Each workload in turn."""
    return example(request.param)
