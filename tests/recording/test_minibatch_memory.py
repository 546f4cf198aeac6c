"""What a minibatch held is freed when it ends, without the garbage collector, which may never come to it."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.recording.compiled_cells import CompiledCells
from edbatch_tvm.recording.copies import Copies
from edbatch_tvm.recording.driver import Driver
from edbatch_tvm.recording.gradient_rounds import CompiledRound, RoundGradients
from edbatch_tvm.recording.gradient_tape import GradientTape
from edbatch_tvm.recording.lazy import LazyTensor
from edbatch_tvm.recording.recorded_parameters import RecordedParameter
from edbatch_tvm.recording.recorder import Recorder
from edbatch_tvm.recording.set_attributes import Element
from edbatch_tvm.training import TrainingResult

H = 13
KINDS = (
    *(Copies, Driver, Element, RecordedParameter, Recorder),
    *(CompiledRound, GradientTape, RoundGradients, TrainingResult),
)


class Chain(nn.Module):
    """Reads rows of a parameter, keeps a state on itself, asks values, and calls a method and a submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, H)
        self.join = nn.Linear(H, H)
        self.state: Any = None
        self.words: list[torch.Tensor] = []

    def step(self, word: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.join(word) + state)

    def forward(self, words: list[int]) -> Any:
        if 6 in words:
            raise ValueError("no such word")
        state = torch.zeros(H)
        for word in words:
            state = self.step(self.table.weight[word], state)
            if state.sum() > 1e6:
                break
        both = torch.stack([state, self.step(state, state)])
        return both[1], self.join(state), both.mean()


class Words(list[int]):
    """An element that keeps something of its own: what elements share, they may not change while they wait."""

    def __init__(self, words: list[int]) -> None:
        super().__init__(words)
        self.kept: list[Any] = []


class Keeping(Chain):
    """Sets attributes of the model, too, and carries them from element to element."""

    def forward(self, words: list[int]) -> Any:
        self.state = self.table.weight[words[0]]
        return super().forward(words)[0] + self.state


@pytest.fixture(scope="module", params=[Chain, Keeping])
def fast(request: pytest.FixtureRequest) -> eb.AutoBatched:
    made = eb.autobatch(request.param().requires_grad_(False), ["step", "join"])
    with torch.no_grad():
        made([[0, 1], [2]])
        made([[3], [4, 5, 1]])
    return made


@pytest.fixture
def alive() -> Iterator[Callable[[], Counter[type]]]:
    """What is there of a minibatch, with no garbage collection."""
    gc.collect()
    gc.disable()
    yield lambda: Counter(type(one) for one in gc.get_objects() if type(one) in KINDS)
    gc.enable()


def test_nothing_is_left(fast: eb.AutoBatched, alive: Callable[[], Counter[type]]) -> None:
    fast([[0, 1], [2]])
    before = alive()
    for words in ([[0, 1], [2]], [[1]], [[3, 3, 3], [1], [0, 5]]):
        fast(words)
    assert alive() == before


@pytest.mark.parametrize("read", [False, True], ids=["one round", "many rounds"])
@pytest.mark.parametrize("backward", [True, False])
def test_nor_of_one_with_gradients(read: bool, backward: bool, alive: Callable[[], Counter[type]]) -> None:
    """Autograd holds the rounds of a minibatch, and each round what it was computed from: nowhere in a circle."""

    class Rounds(Chain):
        def forward(self, words: list[int]) -> Any:
            state = torch.zeros(H)
            for word in words:
                state = self.step(self.table.weight[word], state)
                if read and state.sum() > 1e6:
                    break
            return state

    with torch.enable_grad():
        fast = eb.autobatch(Rounds(), ["step"])
        for _ in range(3):
            fast([[0, 1], [2]])
        gc.collect()
        before = alive()
        for words in ([[0, 1], [2]], [[1]], [[3, 3, 3], [1], [0, 5]]):
            results = fast(words)
            assert len(fast.reports) == (max(map(len, words)) if read else 1)
            if backward:
                torch.stack(results).sum().backward()
            del results
        after = alive()
    assert {kind: after[kind] for kind in KINDS} == {kind: before[kind] for kind in KINDS}


def test_what_lives_on_for_a_tensor_is_its_recorder_alone(
    fast: eb.AutoBatched, alive: Callable[[], Counter[type]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: Any, words: Words) -> Any:
        state = torch.zeros(H)
        for word in words:
            words.kept.append(state)
            state = torch.tanh(self.join(self.table.weight[word]) + state)
            float(state.sum())
        return state

    monkeypatch.setattr(type(fast.model), "forward", forward)
    again = eb.autobatch(fast.model, ["join"])
    again([Words([0, 1]), Words([2])])
    before = alive()
    elements = [Words([0, 1]), Words([2])]
    again(elements)
    kept = [state for one in elements for state in one.kept]
    assert any(type(state) is LazyTensor for state in kept)
    assert all(torch.isfinite(state).all() for state in kept)
    assert alive() - before == {Recorder: 1}


def test_nor_of_one_that_fails(fast: eb.AutoBatched) -> None:
    def count() -> int:
        gc.collect()
        return sum(type(one) in KINDS for one in gc.get_objects())

    for _ in range(3):
        with pytest.raises(ValueError, match="no such word"):
            fast([[0, 1], [6]])
    before = count()
    for _ in range(3):
        with pytest.raises(ValueError, match="no such word"):
            fast([[0, 1], [6]])
    assert count() == before


def test_a_copy_that_somebody_keeps_is_a_module_like_others() -> None:
    class Sharing(Chain):
        def forward(self, words: Words) -> Any:
            words.kept.append(self)
            self.state = self.table.weight[words[0]]
            return super().forward(words)

    model = Sharing().requires_grad_(False)
    fast = eb.autobatch(model, ["step", "join"])
    fast([Words([0, 1]), Words([2])])
    elements = [Words([0, 1]), Words([2])]
    fast(elements)
    copy = elements[0].kept[0]
    assert torch.equal(copy.step(torch.ones(H), torch.ones(H)), model.step(torch.ones(H), torch.ones(H)))
    assert type(copy.state) is torch.Tensor or torch.equal(copy.state.clone(), model.table.weight[0])
    copy.state = None
    assert model.state is not None


def test_nothing_is_left_of_recording_an_element(alive: Callable[[], Counter[type]]) -> None:
    class Plain(Chain):
        def forward(self, words: list[int]) -> Any:
            state = torch.zeros(H)
            for word in words:
                state = self.step(self.table.weight[word], state)
            return state

    plain = eb.autobatch(Plain().requires_grad_(False), ["step", "join"])
    plain.record([0, 1])
    gc.collect()
    before = alive()[RecordedParameter]
    for _ in range(3):
        plain.record([0, 1])
    gc.collect()
    assert alive()[RecordedParameter] == before


def test_first_calls_collect_no_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is imported and compiled meanwhile makes millions of objects, which each collection would look at."""
    enabled: list[bool] = []
    compiled = CompiledCells.compile

    def noted(cells: CompiledCells) -> Any:
        enabled.append(gc.isenabled())
        return compiled(cells)

    monkeypatch.setattr(CompiledCells, "compile", noted)
    fast = eb.autobatch(Chain().eval(), cells=["step", "join"])
    with torch.no_grad():
        with pytest.raises(ValueError, match="no such word"):
            fast([[6]])
        assert gc.isenabled()
        fast([[1, 2], [3]])
    assert enabled
    assert not any(enabled)
    assert gc.isenabled()
