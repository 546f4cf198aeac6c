"""Memory stays what it is over thousands of steps, and over forward passes whose backward pass never comes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

import edbatch_tvm as eb
from edbatch_tvm.models import get_workload
from tests.training.test_backward import random_cotangents

MEBIBYTE = 2**20


def resident() -> int:
    """The memory that the process has, in bytes."""
    gc.collect()
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("VmRSS"))
    return 1024 * int(line.split()[1])


def require_steady(act: Callable[[int], None], times: int, at_most: int) -> None:
    """Half of the times may fill caches, the other half takes nothing more."""
    for number in range(times // 2):
        act(number)
    before = resident()
    for number in range(times // 2, times):
        act(number)
    assert resident() - before <= at_most


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["save", "recompute"])
def test_steps_and_forward_passes(memory: str) -> None:
    workload = get_workload("treelstm")
    weights = workload.weights(24)
    model = eb.compile(workload.cells(24), weights, training=True, memory=memory)
    minibatches = [workload.generate(6, model.cells, seed) for seed in range(50)]

    def step(number: int) -> None:
        result = model(minibatches[number % 50])
        gradients = result.backward(random_cotangents(result, result.graph.outputs.tolist()))
        for name in weights:
            weights[name] -= 1e-4 * gradients[name]
        model.refresh(weights)

    def forward(number: int) -> None:
        model(minibatches[number % 50])

    require_steady(step, 2000, 4 * MEBIBYTE)
    require_steady(forward, 2000, 2 * MEBIBYTE)


@pytest.mark.slow
def test_results_kept_without_a_backward_pass_take_their_values_alone() -> None:
    workload = get_workload("treelstm")
    model: Any = eb.compile(workload.cells(24), workload.weights(24), training=True)
    minibatches = [workload.generate(6, model.cells, seed) for seed in range(50)]
    for instances in minibatches:
        model(instances)
    before = resident()
    kept = [model(minibatches[number % 50]) for number in range(500)]
    values = sum(result.arena(arena).nbytes for result in kept for arena in range(len(model.signature.value_specs)))
    assert resident() - before <= 1.5 * values + 16 * MEBIBYTE
