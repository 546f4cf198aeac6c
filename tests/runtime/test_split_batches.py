"""Batches that are cut into pieces: more kernel calls, the same bits."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.memory.steps_table import COUNT, FIRST
from edbatch_tvm.models import get_workload
from edbatch_tvm.runtime import split_batches
from edbatch_tvm.runtime.split_batches import SplitBatches
from tests.training.test_backward import random_cotangents


def computed(name: str) -> tuple[list[Any], Any, Any]:
    """The bits of results and gradients; both results, with their reports."""
    workload = get_workload(name)
    model = eb.compile(workload.cells(8), workload.weights(8), training=True, database="none")
    result = model(workload.generate(6, model.cells, seed=1))
    values = result.graph.outputs.tolist()
    gradients = result.backward(random_cotangents(result, values))
    found = [result.value(value).tobytes() for value in values]
    return [*found, *(gradients[weight].tobytes() for weight in gradients)], result, gradients


@pytest.mark.parametrize("name", ["treelstm", pytest.param("treegru", marks=pytest.mark.slow)])
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_same_bits(name: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operands that are contiguous, broadcast, and read through an index; attributes."""
    before = eb.get_num_threads()
    eb.set_num_threads(threads)
    try:
        expected, _, whole = computed(name)
        monkeypatch.setattr(split_batches, "_CACHE", 1)
        monkeypatch.setattr(split_batches, "_LEAST", 3)
        found, _, pieces = computed(name)
    finally:
        eb.set_num_threads(before)
    assert found == expected
    assert pieces.report.kernel_calls > 1.5 * whole.report.kernel_calls


def test_pieces_are_the_nodes_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_batches, "_CACHE", 1)
    monkeypatch.setattr(split_batches, "_LEAST", 3)
    workload = get_workload("treegru")
    model = eb.compile(workload.cells(8), workload.weights(8))
    graph = model.merge(workload.generate(6, model.cells, seed=1))
    schedule, _ = model.schedule(graph)
    steps = model.plan(graph, schedule).steps
    assert SplitBatches(model.cells, [False] * len(model.cells)).steps(steps, 1)[1] is None
    made, first = SplitBatches(model.cells, [True] * len(model.cells)).steps(steps, 1)
    assert first is not None
    with monkeypatch.context() as patch:  # as NumPy does it
        patch.setattr("edbatch_tvm.find_native.python_only", True)
        other = SplitBatches(model.cells, [True] * len(model.cells)).steps(steps, 1)
    np.testing.assert_array_equal(other[0], made)
    np.testing.assert_array_equal(other[1], first)
    for step, (begin, end) in zip(steps, pairwise(first.tolist()), strict=True):
        own = made[begin:end]
        assert ((own[:, COUNT] > 0) & (own[:, COUNT] <= 3)).all()
        assert own[:, COUNT].sum() == step[COUNT]
        np.testing.assert_array_equal(own[:, FIRST], step[FIRST] + np.cumsum(own[:, COUNT]) - own[:, COUNT])
