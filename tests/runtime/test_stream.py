"""``model.map``: the results of ``model``, in order, with minibatches prepared ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.models import get_workload
from edbatch_tvm.runtime import Model

WORKLOAD = get_workload("treelstm")


@pytest.fixture(scope="module")
def model() -> Model:
    return eb.compile(WORKLOAD.cells(12), WORKLOAD.weights(12), policy="agenda")


def minibatches(model: Model, count: int) -> list[list[InstanceGraph]]:
    return [
        [WORKLOAD.graph(model.builder(), item) for item in WORKLOAD.source.generate(1 + n % 3, n)] for n in range(count)
    ]


@pytest.mark.parametrize("prefetch", [0, 1, 2, 50])
@pytest.mark.parametrize("equal_nodes", [False, True])
def test_the_same_as_one_by_one(model: Model, prefetch: int, equal_nodes: bool) -> None:
    some = minibatches(model, 9)
    model.equal_nodes = equal_nodes
    try:
        results = list(model.map(iter(some), prefetch))
        assert len(results) == len(some)
        for result, instances in zip(results, some, strict=True):
            assert np.array_equal(np.concatenate(list(result)), np.concatenate(list(model(instances))))
            assert set(result.report.seconds) == {"build", "schedule", "plan", "execute", "total"}
    finally:
        model.equal_nodes = False


def test_minibatches_are_taken_ahead_and_no_further(model: Model) -> None:
    taken, ready = [], threading.Semaphore(0)

    def source() -> Iterator[Any]:
        for number, instances in enumerate(minibatches(model, 8)):
            taken.append(number)
            ready.release()
            yield instances

    stream = model.map(source(), prefetch=3)
    next(stream)
    for _ in range(4):  # the one that ran, and three that wait
        assert ready.acquire(timeout=60)
    assert not ready.acquire(timeout=0.2)
    stream.close()  # type: ignore[attr-defined]
    assert taken == [0, 1, 2, 3]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edbatch-map")]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_errors_come_in_their_place(model: Model, prefetch: int) -> None:
    good = minibatches(model, 2)
    stream = model.map([*good, [], *good], prefetch)
    assert len(next(stream)) == len(good[0])
    assert len(next(stream)) == len(good[1])
    with pytest.raises(GraphError, match="an empty minibatch"):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)

    def source() -> Iterator[Any]:
        yield good[0]
        raise OSError("the disk")

    stream = model.map(source(), prefetch)
    next(stream)
    with pytest.raises(OSError, match="the disk"):
        next(stream)


def test_nothing(model: Model) -> None:
    assert list(model.map([])) == []


@pytest.mark.parametrize("prefetch", [-1, 1.5, True, None, "2"])
def test_other_numbers(model: Model, prefetch: Any) -> None:
    with pytest.raises(GraphError, match="prefetch"):
        model.map([], prefetch)


def test_one_instance_is_no_stream(model: Model) -> None:
    with pytest.raises(GraphError, match=r"model.map\(\[\[instance\]\]\)"):
        model.map(minibatches(model, 1)[0][0])  # type: ignore[arg-type]
