"""The planning kernels and the NumPy reference give equal results."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edbatch_tvm.batching import Schedule, schedule
from edbatch_tvm.graph import InstanceGraph, merge
from edbatch_tvm.memory import PLANS, plan_memory
from edbatch_tvm.memory.layout import Layout
from edbatch_tvm.memory.native_or_numpy_planner import Planner, ReferencePlanner, select_planner
from edbatch_tvm.native.planner import NativePlanner, load
from tests.memory.workloads import sentences, trees
from tests.strategies import Minibatch, minibatches


@pytest.fixture(scope="module")
def native() -> NativePlanner:
    """The kernels; they must build where these tests run."""
    return load()


def assert_equal(one: object, other: object) -> None:
    """Two layouts or tables are equal."""
    for name, value in vars(one).items():
        assert np.array_equal(value, getattr(other, name)), name


def check(graph: InstanceGraph, batches: Schedule, native: NativePlanner) -> None:
    """Compare every step of planning."""
    reference: Planner = ReferencePlanner()
    layouts: list[Layout] = []
    for step in ("by_batch", "order"):
        ours, theirs = (getattr(planner, step)(graph, batches) for planner in (native, reference))
        assert_equal(ours, theirs)
        assert_equal(native.fill(graph, batches, ours), reference.fill(graph, batches, theirs))
        layouts.append(ours)
    for ours, theirs in zip(native.fill_by_batch(graph, batches), reference.fill_by_batch(graph, batches), strict=True):
        assert_equal(ours, theirs)
    for one in layouts:
        for other in layouts:
            tables = native.fill(graph, batches, one)
            assert native.indexes_no_others(graph, batches, tables, other) == reference.indexes_no_others(
                graph, batches, tables, other
            )


@given(minibatches(), st.sampled_from(["depth", "lookahead"]))
def test_random_graphs(native: NativePlanner, minibatch: Minibatch, policy: str) -> None:
    graph = merge(minibatch.instances)
    if graph.num_nodes:
        check(graph, schedule(graph, policy)[0], native)


@pytest.mark.parametrize("policy", ["depth", "agenda", "lookahead"])
@pytest.mark.parametrize("make", [sentences, trees])
def test_minibatches(native: NativePlanner, make: object, policy: str, rng: np.random.Generator) -> None:
    graph = make(rng, 16)  # type: ignore[operator]
    check(graph, schedule(graph, policy)[0], native)


def test_the_reference_can_be_forced(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = trees(rng, 4)
    batches, _ = schedule(graph, "depth")
    plans = [plan_memory(batches, graph, name) for name in PLANS]
    assert isinstance(select_planner(graph), NativePlanner)
    monkeypatch.setattr("edbatch_tvm.find_native.python_only", True)
    assert isinstance(select_planner(graph), ReferencePlanner)
    for name, plan in zip(PLANS, plans, strict=True):
        again = plan_memory(batches, graph, name)
        assert np.array_equal(again.value_row, plan.value_row)
        assert np.array_equal(again.steps, plan.steps)
