"""The backward pass runs in the arenas of the forward pass: same bits as in arenas of its own, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.models import get_workload
from edbatch_tvm.training.forward_rows import ForwardRows
from tests.training.test_backward import random_cotangents

HIDDEN = 12


class Watched:
    """What backward passes shared, one dict of arenas a pass."""

    def __init__(self, patch: pytest.MonkeyPatch, allowed: Callable[[int], bool] = lambda _: True) -> None:
        self.passes: list[set[int]] = []
        original = ForwardRows.shared

        def shared(rows: ForwardRows, arena_rows: Any, executor: Any) -> dict[int, np.ndarray]:
            found = original(rows, arena_rows, executor) if allowed(len(self.passes)) else {}
            self.passes.append(set(found))
            return found

        patch.setattr(ForwardRows, "shared", shared)


def bits(model: Any, instances: Any, retain: bool = False) -> list[dict[str, bytes]]:
    """The bits of the gradients of one backward pass, or of two of one result."""
    result = model(instances)
    before = [result.arena(arena)[:rows].copy() for arena, rows in enumerate(result.plan.arena_rows)]
    cotangents = random_cotangents(result, result.graph.outputs.tolist())
    found = []
    for last in (False, True) if retain else (True,):
        gradients = result.backward(cotangents, retain=not last)
        found.append({name: gradients[name].tobytes() for name in gradients})
        found[-1] |= {f"external {place}": rows.tobytes() for place, rows in enumerate(gradients.external)}
    for arena, rows in enumerate(before):
        np.testing.assert_array_equal(result.arena(arena)[: len(rows)], rows)
    return found


@pytest.mark.parametrize(
    "name",
    ["treelstm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("childsum-tree", "lattice-lstm"))],
)
def test_the_same_bits_in_arenas_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = get_workload(name)
    model = eb.compile(workload.cells(HIDDEN), workload.weights(HIDDEN), training=True)
    small, large = workload.generate(3, model.cells, seed=1), workload.generate(9, model.cells, seed=2)
    with monkeypatch.context() as patch:
        Watched(patch, lambda _: False)
        expected = [bits(model, one)[0] for one in (small, large)]
    with monkeypatch.context() as patch:
        watched = Watched(patch)
        bits(model, large)  # from now on there is room
        assert bits(model, small, retain=True) == [expected[0]] * 2
        assert bits(model, large) == [expected[1]]
        assert bits(model, small) == [expected[0]]
        assert all(watched.passes[1:])


def test_kept_results_have_rows_of_their_own() -> None:
    """Results that live at the same time, in any order of their backward passes."""
    workload = get_workload("treelstm")
    model = eb.compile(workload.cells(HIDDEN), workload.weights(HIDDEN), training=True)
    minibatches = [workload.generate(3, model.cells, seed=seed) for seed in range(3)]
    expected = [bits(model, one)[0] for one in minibatches]
    results = [model(one) for one in minibatches]
    for number in (2, 0, 1):
        result = results[number]
        gradients = result.backward(random_cotangents(result, result.graph.outputs.tolist()))
        assert {name: gradients[name].tobytes() for name in gradients}.items() <= expected[number].items()


def test_gradients_do_not_keep_the_forward_pass() -> None:
    """The next minibatch runs in the same arenas, although the gradients live."""
    workload = get_workload("treelstm")
    model: Any = eb.compile(workload.cells(HIDDEN), workload.weights(HIDDEN), training=True)
    instances = workload.generate(3, model.cells, seed=1)
    places, kept = [], []
    for _ in range(4):
        result = model(instances)
        places.append([result.arena(arena).ctypes.data for arena in range(len(model.signature.value_specs))])
        kept.append(result.backward(random_cotangents(result, result.graph.outputs.tolist())))
        del result
    assert places[2] == places[3]
    assert kept[0].schedule.graph is not None
