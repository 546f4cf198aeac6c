"""Elements that are recorded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import RecordingError
from tests.recording.checks import assert_equal
from tests.recording.models import ChildSumTreeLSTM, ShiftReduceParser, random_trees

WORDS = 20


class Chain(nn.Module):
    """Reads more than the weights of its cell: other parameters, a buffer, attributes, its mode."""

    scale = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(WORDS, 8))
        self.start = nn.Parameter(torch.randn(8))
        self.register_buffer("shift", torch.randn(8))
        self.join, self.out = nn.Linear(16, 8), nn.Linear(8, 3)
        self.temperature, self.order = 1.0, [0, 1]
        self.options = {"twice": False}

    def step(self, state: torch.Tensor, word: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.join(torch.cat([state, word])))

    def forward(self, words: list[int]) -> dict[str, Any]:
        state = self.start * self.scale
        for word in words:
            state = self.step(state, self.table[word])
            if self.options["twice"]:
                state = self.step(state, self.table[word])
        scores = self.out(state) / self.temperature
        if self.training:
            scores = scores * 2
        return {"scores": [scores[n] for n in self.order], "state": state + self.shift, "words": words}


@pytest.fixture(scope="module")
def chain() -> tuple[Chain, Any]:
    torch.manual_seed(0)
    model = Chain().eval().requires_grad_(False)
    fast = eb.autobatch(model, ["step"])
    fast([[1, 2], [3]])
    return model, fast


def test_records_stand_for_elements(chain: tuple[Chain, Any]) -> None:
    model, fast = chain
    elements = [[1], [2, 3, 4], [5, 6], [1]]
    records = [fast.record(element) for element in elements]
    expected = [model(element) for element in elements]
    for chosen in ([0, 1, 2, 3], [0, 2], []):
        given = [records[n] if n in chosen else element for n, element in enumerate(elements)]
        assert_equal(fast(given), expected)
        assert len(fast.reports) == 1
    assert_equal(fast(records[1]), expected[1])
    assert_equal(fast([records[1]] * 2), [expected[1]] * 2)


def _numpy(tensor: torch.Tensor) -> None:
    tensor.detach().numpy()[...] += 0.5


def _data(tensor: torch.Tensor) -> None:
    tensor.data = tensor.data * 0.5


CHANGES: dict[str, Callable[[Chain], Any]] = {
    "weight of a cell": lambda model: model.join.weight.mul_(0.5),
    "weight of a cell, NumPy": lambda model: _numpy(model.join.bias),
    "weight of an operator": lambda model: _data(model.out.weight),
    "parameter, in place": lambda model: model.table.mul_(0.5),
    "parameter, NumPy": lambda model: _numpy(model.table),
    "parameter, data": lambda model: _data(model.table),
    "vector": lambda model: _numpy(model.start),
    "new parameter": lambda model: setattr(model, "start", nn.Parameter(torch.ones(8), requires_grad=False)),
    "buffer": lambda model: _numpy(model.shift),
    "attribute": lambda model: setattr(model, "temperature", 2.0),
    "list": lambda model: model.order.append(2),
    "dict": lambda model: model.options.update(twice=True),
    "class": lambda _model: setattr(Chain, "scale", 3.0),
    "mode": lambda model: model.train(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_records_know_what_forward_read(chain: tuple[Chain, Any], name: str) -> None:
    model, fast = chain
    elements = [[1, 2], [3]]
    records = [fast.record(element) for element in elements]
    before = [model(element) for element in elements]
    try:
        CHANGES[name](model)
        expected = [model(element) for element in elements]
        with pytest.raises(AssertionError):
            assert_equal(before, expected)
        assert_equal(fast([records[0], elements[1]]), expected)
        assert_equal(fast(records), expected)
    finally:
        Chain.scale, model.temperature, model.order, model.options = 1.0, 1.0, [0, 1], {"twice": False}
        model.eval()
    assert_equal(fast(records), [model(element) for element in elements])


def test_records_of_trees_with_new_cells() -> None:
    model = ChildSumTreeLSTM(8).requires_grad_(False)
    fast = eb.autobatch(model, ["node_forward"])
    trees = random_trees(6)
    records = [fast.record(tree) for tree in trees[:3]]
    assert_equal(fast([*records, *trees[3:]]), [model(tree) for tree in trees])
    assert_equal(fast(records), [model(tree) for tree in trees[:3]])


def test_what_cannot_be_recorded_is_an_error() -> None:
    parser = eb.autobatch(ShiftReduceParser(8, WORDS).requires_grad_(False), ["shift", "reduce", "score"])
    with pytest.raises(RecordingError, match=r"reads a value \(.*models.py:\d+\)"):
        parser.record([1, 2, 3, 4])

    class Sets(Chain):
        def forward(self, words: list[int]) -> Any:
            self.last = self.step(self.start, self.table[words[0]])
            return self.last

    class Draws(Chain):
        def forward(self, words: list[int]) -> Any:
            return self.step(self.start, torch.randn(8))

    for kind, message in ((Sets, "sets last"), (Draws, "random numbers")):
        fast = eb.autobatch(kind().requires_grad_(False), ["step"])
        with pytest.raises(RecordingError, match=message):
            fast.record([1])


def test_a_record_belongs_to_its_model(chain: tuple[Chain, Any]) -> None:
    _, fast = chain
    other = eb.autobatch(Chain().requires_grad_(False), ["step"])
    with pytest.raises(RecordingError, match="another model"):
        other([fast.record([1])])
