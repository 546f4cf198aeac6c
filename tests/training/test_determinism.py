"""Gradients are the same bits in every run, with any number of threads, by every policy that makes the same batches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm import losses
from edbatch_tvm.memory import PLANS
from edbatch_tvm.models import get_workload
from edbatch_tvm.peers.training import LossBuilder

HIDDEN = 72  # large enough that threads share the work, and of this file alone


@pytest.fixture(params=["treelstm", pytest.param("lattice-lstm", marks=pytest.mark.slow)])
def case(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A model with losses, and instances."""
    workload = get_workload(request.param)
    cells = workload.cells(HIDDEN)
    classes = {"treelstm": 5, "lattice-lstm": 64}[request.param]
    model = eb.compile(
        losses.with_losses(cells, loss=losses.cross_entropy(classes)), workload.weights(HIDDEN), training=True
    )
    items = workload.source.generate(12, 5)
    builder = LossBuilder(model.cells, iter(np.resize(np.arange(classes), 10_000).tolist()))
    return model, [workload.graph(builder, item) for item in items]


@pytest.fixture
def _threads() -> Iterator[None]:
    before = eb.get_num_threads()
    yield
    eb.set_num_threads(before)


def bits(model: Any, instances: Any) -> tuple[list[tuple[int, ...]], dict[str, bytes]]:
    """The batches, and the bits of losses, of gradients of weights, and of rows of tables."""
    result = model(instances)
    gradients = result.backward()
    found = {name: gradients[name].tobytes() for name in gradients}
    found["losses"] = result.values(result.graph.outputs).tobytes()
    order, ends = result.schedule.order, result.schedule.batch_ptr
    batches = [tuple(sorted(order[a:b].tolist())) for a, b in pairwise(ends)]
    return sorted(batches), found


@pytest.mark.slow
@pytest.mark.usefixtures("_threads")
def test_the_same_bits(case: tuple[Any, Any]) -> None:
    model, instances = case
    model.policy = "agenda"
    batches, expected = bits(model, instances)
    assert any(np.frombuffer(one, np.float32).any() for one in expected.values())
    for threads in (1, 2):
        eb.set_num_threads(threads)
        for _ in range(10):
            assert bits(model, instances) == (batches, expected), threads
    same = 0
    for policy in ("depth", "agenda", "lookahead", "ratio", "best"):
        for plan in PLANS:
            model.policy, model.plan_name = policy, plan
            own, found = bits(model, instances)
            if own == batches:
                same += 1
                assert found == expected, (policy, plan)
    # Of trees there is one way to make fewest batches.
    assert same > len(PLANS) or "join" in model.cells.names
