"""A model that takes longer in batches than by itself: one warning, and nothing else changes."""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import SlowerWarning
from edbatch_tvm.recording import eager_comparison
from edbatch_tvm.recording.eager_comparison import LEAST_ELEMENTS, LEAST_SECONDS, WARM_CALLS, EagerComparison
from tests.recording.checks import assert_equal


class Counting(nn.Module):
    """A model that changes itself and what it holds, and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
        self.calls, self.seen = 0, [0]
        self.register_buffer("total", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen.append(self.calls)
        self.total += 1
        return self.norm(self.cell(x)) * random.random() + torch.rand(1)


def test_timing_elements_changes_nothing() -> None:
    model = Counting()
    kept = [model.total.clone(), model.norm.running_mean.clone()]
    before = random.getstate(), torch.get_rng_state()
    functions = [lambda own: own(torch.ones(2, 3))] * 4
    assert len(eager_comparison.eager_seconds(model, functions, 60.0)) == 4
    assert len(eager_comparison.eager_seconds(model, functions, 0.0)) == 0
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert (model.calls, model.seen) == (0, [0])
    assert_equal([model.total, model.norm.running_mean], kept)


def test_what_cannot_be_timed_is_not() -> None:
    def fails(_own: Any) -> None:
        raise OSError

    class NoCopies(nn.Linear):
        def __deepcopy__(self, _memo: Any) -> Any:
            raise TypeError

    assert eager_comparison.eager_seconds(nn.Linear(1, 1), [fails], 1.0) == []
    assert eager_comparison.eager_seconds(NoCopies(1, 1), [lambda own: own], 1.0) == []


@pytest.mark.parametrize(
    ("eager", "seconds", "count", "told"),
    [
        (0.001, 2 * LEAST_SECONDS, LEAST_ELEMENTS, True),
        (0.001, 2 * LEAST_SECONDS, LEAST_ELEMENTS - 1, False),
        (0.0001, LEAST_SECONDS / 2, LEAST_ELEMENTS, False),
        (1.0, 2 * LEAST_SECONDS, LEAST_ELEMENTS, False),
    ],
)
def test_when_a_warning_is_given(
    monkeypatch: pytest.MonkeyPatch, eager: float, seconds: float, count: int, told: bool
) -> None:
    monkeypatch.setattr(eager_comparison, "eager_seconds", lambda *_: [eager] * 4)
    comparison, functions = EagerComparison(), [lambda own: own] * count
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        comparison.note(nn.Linear(1, 1), functions, 4, seconds, 0.01)
        for _ in range(WARM_CALLS):  # a new cell was compiled in the first of them
            comparison.note(nn.Linear(1, 1), functions, 5, seconds, 0.01)
        assert not caught
        for _ in range(3):
            comparison.note(nn.Linear(1, 1), functions, 5, seconds, 0.01)
    assert [one.category for one in caught] == [SlowerWarning] * told
    if told:
        text = str(caught[0].message)
        assert f"{seconds * 1e3:.0f} ms for {count} elements" in text
        assert f"Linear takes about {eager * 1e3 * count:.0f} ms" in text
        assert "10 ms were batches" in text


@pytest.mark.parametrize(
    ("eager", "left", "least"),
    [(0.001, True, 1), (0.01, False, 1), (0.0038, True, 2), (0.0062, False, 2), (0.0049, True, 3), (0.005, False, 3)],
)
@pytest.mark.parametrize("count", [1, LEAST_ELEMENTS])
def test_how_many_calls_are_compared_before_a_model_is_left(
    monkeypatch: pytest.MonkeyPatch, eager: float, left: bool, least: int, count: int
) -> None:
    monkeypatch.setattr(eager_comparison, "eager_seconds", lambda *_: [eager])
    comparison, functions, seconds = EagerComparison(leaves=True), [lambda own: own] * count, 0.005 * count
    reasons = []
    while not comparison.settled:
        assert len(reasons) < 100
        reasons.append(comparison.note(nn.Linear(1, 1), functions, 5, seconds, 0.01))
    assert [bool(one) for one in reasons] == [*[False] * (len(reasons) - 1), left]
    compared = len(reasons) - WARM_CALLS
    assert compared >= least
    assert compared * seconds * 1.001 >= LEAST_SECONDS
    assert compared <= max(least, LEAST_SECONDS / seconds + 1)


def test_a_model_that_is_faster_by_itself_is_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager_comparison, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(eager_comparison, "eager_seconds", lambda *_: [0.0])
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh()).eval()
    fast = eb.autobatch(model, cells=["0"], fallback="auto")
    elements = [torch.ones(3) * number for number in range(3)]

    def changed_and_equal() -> None:
        model[0].weight.data += 1
        assert_equal(fast(elements), [model(x) for x in elements])

    for _ in range(20):
        changed_and_equal()
    assert list(fast.left_to_pytorch) == ["Sequential"]
    assert fast.batches == 0
    with torch.enable_grad():
        assert fast(elements)[0].requires_grad
    assert fast.batches  # training was not compared
    assert not fast.left_to_pytorch
    changed_and_equal()
    assert fast.batches == 0
    model[0].register_buffer("new", torch.ones(1))  # another model
    changed_and_equal()
    assert not fast.left_to_pytorch


def test_calls_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager_comparison, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(eager_comparison, "_SLOWER", 0.0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    fast = eb.autobatch(model, cells=["0"])
    elements = [torch.ones(3) * number for number in range(LEAST_ELEMENTS)]
    for _ in range(WARM_CALLS):
        fast(elements)
    with pytest.warns(SlowerWarning, match="list larger parts as cells") as caught:
        results = fast(elements)
    assert caught[0].filename == __file__
    assert_equal(results, [model(x) for x in elements])
    fast(elements)  # once
