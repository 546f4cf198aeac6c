"""Rounds in compiled code give what rounds in Python give, whatever comes in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.native import cell_tables, constants
from edbatch_tvm.recording import rounds
from edbatch_tvm.recording.core import core
from edbatch_tvm.recording.failures import CallError
from edbatch_tvm.recording.rounds import RoundReport
from tests.recording.checks import assert_equal

H = 13

pytestmark = pytest.mark.skipif(bool(core.reason), reason=core.reason)


class Reader(nn.Module):
    """Reads values between calls; what it does next depends on them."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, H)
        self.both = nn.Linear(2 * H, H)
        self.score = nn.Linear(H, 3)

    def word(self, number: int) -> torch.Tensor:
        return torch.tanh(self.table.weight[number])

    def words(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.table(numbers).sum(0)

    def join(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.both(torch.cat([left, right]))
        return torch.tanh(h), h

    def rank(self, h: torch.Tensor) -> torch.Tensor:
        return self.score(h)

    def forward(self, words: list[int]) -> Any:
        states = [self.word(word) for word in words]
        kept = [torch.zeros(H), states[0]]
        for step in range(2 * len(words)):
            best = int(self.rank(kept[-1]).argmax())
            if best == 0:
                kept.append(self.join(kept[-1], states[step % len(words)])[0])
            elif best == 1:
                kept.append(self.join(*kept[-2:])[1])
            else:
                kept.append(self.between(kept, words))
        return [*kept, torch.stack(kept[-3:])]

    def between(self, kept: list[torch.Tensor], words: list[int]) -> torch.Tensor:
        return self.join(torch.full((H,), 0.25), kept[0])[0]


class Indices(Reader):
    """Takes indices that are a tensor, which compiled code leaves to Python."""

    def between(self, kept: list[torch.Tensor], words: list[int]) -> torch.Tensor:
        return self.words(torch.tensor([words[0], 3])) * kept[-1]


class Numbers(Reader):
    """Takes indices and labels of one element, in any shape."""

    def between(self, kept: list[torch.Tensor], words: list[int]) -> torch.Tensor:
        rows = self.words(torch.tensor([words[0]])) + self.table(torch.tensor([[words[-1]], [2]])).sum((0, 1))
        loss = nn.functional.cross_entropy(self.rank(kept[-1])[None], torch.tensor([words[0] % 3]))
        return rows * kept[-1] + loss


class Breaks(Reader):
    """Computes with PyTorch, and looks at the memory of a state."""

    def between(self, kept: list[torch.Tensor], words: list[int]) -> torch.Tensor:
        self.join(kept[-1], kept[-1])
        return torch.fft.fft(kept[-1]).real / 4 + torch.from_numpy(kept[1].numpy().copy())


ELEMENTS = [[1, 2, 3], [4], [5, 1, 1, 1], [2, 2, 8, 0, 7, 6], [1, 2, 3]]
CELLS = ["word", "words", "join", "rank"]


@pytest.fixture
def rounds_run(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The results of all attempts to compute a round in compiled code."""
    found: list[Any] = []
    original: Callable[..., Any] = rounds.compute_natively

    def watched(recorder: Any) -> Any:
        found.append(original(recorder))
        return found[-1]

    monkeypatch.setattr("edbatch_tvm.recording.compiled_or_pytorch.compute_natively", watched)
    return found


@pytest.mark.parametrize("kind", [Reader, Indices, Numbers, Breaks])
@pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")
def test_compiled_rounds_and_python_ones_agree(kind: type[Reader], rounds_run: list[Any]) -> None:
    torch.manual_seed(3)
    model = kind().requires_grad_(False)
    fast = eb.autobatch(model, CELLS)
    wanted = [model(element) for element in ELEMENTS]
    assert_equal(fast(ELEMENTS), wanted)  # selects a policy, in Python
    rounds_run.clear()
    found = fast(ELEMENTS)
    assert_equal(found, wanted)
    compiled = [report for report in rounds_run if report is not None]
    assert compiled
    assert (len(compiled) < len(rounds_run)) == (kind is Indices)
    core.use(False)
    try:
        assert_equal(fast(ELEMENTS), wanted)
        assert not any(type(report) is RoundReport for report in fast.reports)
    finally:
        core.use(True)
    # What was returned lies in no memory that is used again.
    assert_equal(found, wanted)


@pytest.mark.parametrize("policy", ["depth", "agenda", "ratio", "lookahead", "best"])
def test_every_policy(policy: str) -> None:
    torch.manual_seed(3)
    model = Reader().requires_grad_(False)
    fast = eb.autobatch(model, CELLS, policy=policy)
    for _ in range(2):
        assert_equal(fast(ELEMENTS), [model(element) for element in ELEMENTS])
    native = [report for report in fast.reports if type(report) is RoundReport]
    assert bool(native) == (policy != "best")
    core.use(False)
    try:
        fast(ELEMENTS)
        assert fast.batches == sum(len(report.plan.schedule) for report in fast.reports)
        python = fast.reports
    finally:
        core.use(True)
    for one, other in zip(native, python, strict=False):
        assert one.batches == other.batches
        assert one.calls == other.calls
        assert one.lower_bound == other.lower_bound


def test_equal_calls_are_one_node() -> None:
    torch.manual_seed(3)
    model = Reader().requires_grad_(False)
    fast = eb.autobatch(model, CELLS)
    elements = [[1, 2, 3]] * 7 + [[1, 2, 4]]
    for _ in range(2):
        found = fast(elements)
    assert_equal(found, [model(element) for element in elements])
    first = fast.reports[0]
    assert type(first) is RoundReport
    assert first.calls == 8 * 4
    assert first.graph.num_nodes == 4 + 1  # four words, one score
    found[0][1].zero_()
    assert_equal(found[1], model([1, 2, 3]))
    assert str(first).startswith("policy")
    assert first.plan.steps.shape[0] == first.batches


def test_weights_and_cells_that_come_later() -> None:
    torch.manual_seed(3)
    model = Reader().requires_grad_(False)
    fast = eb.autobatch(model, CELLS)
    fast(ELEMENTS)
    model.score.weight.neg_()
    assert_equal(fast(ELEMENTS), [model(element) for element in ELEMENTS])
    model.between = lambda kept, words: torch.relu(kept[-1]) - kept[0]  # type: ignore[method-assign]
    for _ in range(2):  # a new cell in the middle of the minibatch, whose earlier values it reads
        assert_equal(fast(ELEMENTS), [model(element) for element in ELEMENTS])


@pytest.mark.parametrize("number", [9, 1 << 40])
def test_an_index_that_no_table_has_is_the_same_error(number: int) -> None:
    class Looking(Reader):
        def word(self, number: int) -> torch.Tensor:
            return self.table(torch.tensor(number))

    fast = eb.autobatch(Looking().requires_grad_(False), CELLS)
    fast(ELEMENTS)
    errors = []
    for compiled in (True, False):
        core.use(compiled)
        with pytest.raises(CallError, match=f"index {number}.*0 to 8") as caught:
            fast([[1, 2], [3, number]])
        errors.append(str(caught.value))
    core.use(True)
    assert errors[0] == errors[1]
    assert "in element 1" in errors[0]


def test_numbers_that_compiled_code_has_too() -> None:
    """``rounds.h``, ``graphs.h`` and ``values.h`` have these by the same names."""
    assert (constants.AGENDA, constants.RATIO, constants.LOOKAHEAD, constants.FSM) == (0, 1, 2, 4)
    assert (constants.BATCHES, constants.MISSES, constants.FAILED, constants.IO_SLOTS) == (0, 1, 2, 9)
    assert constants.LANES == 8
    assert (cell_tables.FILLED, cell_tables.LARGEST, cell_tables.MOST_ROWS, cell_tables.IO_SLOTS) == (4, 6, 7, 8)
    assert (cell_tables.WIDTH, cell_tables.OPERANDS, cell_tables.FIXED, cell_tables.REPEATED) == (0, 1, 2, 3)


def test_values_that_live_on() -> None:
    torch.manual_seed(3)

    class Words(list[int]):
        kept: list[torch.Tensor]

    class Keeping(Reader):
        def forward(self, words: Words) -> Any:
            words.kept = [self.word(words[0])]
            int(self.rank(words.kept[-1]).argmax())
            words.kept.append(self.join(words.kept[-1], torch.ones(H))[0])
            return words.kept[-1]

    model = Keeping().requires_grad_(False)
    fast = eb.autobatch(model, CELLS)
    fast([Words([1]), Words([2])])
    elements = [Words([1]), Words([2])]
    fast(elements)
    for words in ([[3], [4]], [[5], [6], [7]]):
        fast([Words(one) for one in words])
        for one in elements:
            assert_equal(one.kept[0].clone(), model.word(one[0]))


@pytest.mark.parametrize("size", [H, 1100])  # rows that are known by their bytes, and large ones
def test_records_share_equal_calls(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, size))
            self.join = nn.Linear(size, H)

        def node(self, x: torch.Tensor, number: int, rows: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.join(x)) * number + rows.sum(0)

        def forward(self, words: list[int]) -> Any:
            h = torch.zeros(H)
            for word in words:
                h = self.node(self.weight[word], word + 2, torch.stack([h, torch.ones(H)]))
            return [h, torch.ones(2), h * 2] if len(words) > 1 else h

    torch.manual_seed(3)
    model = Sums().requires_grad_(False)
    fast = eb.autobatch(model, ["node"])
    elements = [[1, 2], [1, 2, 3], [4], [1, 2], [1]]
    fast(elements)
    records = [fast.record(element) for element in elements]
    wanted = [model(element) for element in elements]
    for compiled in (True, True, False):
        core.use(compiled)
        assert_equal(fast(records), wanted)
        assert (type(fast.reports[0]) is RoundReport) == compiled
        assert_equal(fast([*records[1:], elements[0]]), [*wanted[1:], wanted[0]])
    core.use(True)
    fast(records)
    report = fast.reports[0]
    assert report.calls == 2 + 3 + 1 + 2 + 1 + 3  # and the products
    if size == H:  # large tensors are known by what they are, not by what is in them
        assert report.graph.num_nodes == 3 + 1 + 2
    monkeypatch.setattr("edbatch_tvm.recording.library._MOST_SHARED_BYTES", 0)
    others = [fast.record(element) for element in elements]
    assert_equal(fast([*others, *records]), [*wanted, *wanted])
    assert type(fast.reports[0]) is not RoundReport  # they read tensors of several tables


class Widths(nn.Module):
    """Values of many sizes."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.halves = nn.ModuleList(nn.Linear(3, 5 + number) for number in range(count))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [half(x) for half in self.halves]


def _assert_widths(count: int) -> None:
    model = Widths(count).requires_grad_(False)
    fast = eb.autobatch(model, [f"halves.{number}" for number in range(count)])
    elements = [torch.randn(3) for _ in range(4)]
    for _ in range(3):
        assert_equal(fast(elements), [model(x) for x in elements])


def test_more_sizes_of_values_than_compiled_code_takes(monkeypatch: pytest.MonkeyPatch, rounds_run: list[Any]) -> None:
    monkeypatch.setattr(rounds.native, "MOST_INPUTS", 2)
    _assert_widths(3)
    assert not any(rounds_run)


@pytest.mark.slow
def test_fifty_sizes_of_values(rounds_run: list[Any]) -> None:
    _assert_widths(50)
    assert any(rounds_run)
