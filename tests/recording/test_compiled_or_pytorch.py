"""Cells that are slower compiled are left to PyTorch, batched over the elements; the results stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import ConfigError
from edbatch_tvm.recording import compiled_or_pytorch
from tests.recording.checks import assert_equal


class Modules(nn.Module):
    """A neural module network of a few blocks: convolutions, a cell of rows, integers, and a variadic cell."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 3)
        self.block = nn.Conv2d(3, 3, 3, padding=1)
        self.mix = nn.Linear(3, 3)

    def word(self, number: torch.Tensor) -> torch.Tensor:
        return self.words(number)

    def conv(self, image: torch.Tensor, word: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        made = torch.relu(self.block(image * word[..., None, None]))
        return made, made.mean((2, 3))

    def join(self, states: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.mix(states).sum(0), 0)

    def forward(self, element: tuple[torch.Tensor, list[int]]) -> torch.Tensor:
        image, numbers = element
        states = []
        for number in numbers:
            image, state = self.conv(image, self.word(torch.tensor([number])))
            states.append(state[0])
        return self.join(torch.stack(states))


CELLS = ["word", "conv", "join"]
ELEMENTS = [(torch.randn(1, 3, 4, 4), numbers) for numbers in ([1], [0, 2, 4], [3, 3], [2, 1], [4])]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return Modules().eval()


def expected(model: nn.Module) -> list[Any]:
    return [model(element) for element in ELEMENTS]


@pytest.mark.parametrize(
    "left", [["join", "word"], *(pytest.param(some, marks=pytest.mark.slow) for some in (["conv"], CELLS))]
)
def test_any_cells_can_be_left_to_pytorch(model: nn.Module, left: list[str]) -> None:
    fast = eb.autobatch(model, CELLS, fallback=left)
    for _ in range(2):
        assert_equal(fast(ELEMENTS), expected(model))
    assert set(fast.left_to_pytorch) == set(left)
    own = [report for report in fast.reports if isinstance(report, compiled_or_pytorch.PyTorchReport)]
    assert {name for report in own for name in report.paths} == set(left)
    assert all("PyTorch (asked for)" in str(report) for report in own)


def test_what_is_measured_to_be_slower_is_left(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fast = eb.autobatch(model, CELLS, fallback="auto")
    fast(ELEMENTS)
    chosen = fast._library.fallback
    number = next(cell.type_id for cell in fast._library.cells if cell.name == "conv")
    chosen.settled, chosen.left = set(), {}
    monkeypatch.setattr(compiled_or_pytorch, "_ENOUGH", 0.0)
    slow = compiled_or_pytorch.Fallback._seconds_of_pytorch

    def seconds(self: Any, graph: Any, nodes: Any, batches: Any) -> float:
        assert slow(self, graph, nodes, batches) > 0
        return -1.0 if nodes[batches[0][1][0]][0] == number else 1.0

    monkeypatch.setattr(compiled_or_pytorch.Fallback, "_seconds_of_pytorch", seconds)
    monkeypatch.setattr(compiled_or_pytorch, "_WORTH", 0.0)
    monkeypatch.setattr(compiled_or_pytorch, "_LEAST_GAIN", 0.0)
    assert_equal(fast(ELEMENTS), expected(model))
    assert set(fast.left_to_pytorch) == {"conv"}
    assert "'conv' is left to PyTorch" in caplog.text
    assert_equal(fast(ELEMENTS), expected(model))
    assert chosen.settled == {cell.type_id for cell in fast._library.cells}


class Unmapped(nn.Module):
    """Code that ``torch.vmap`` does not take: it makes a tensor of numbers it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 3)

    def cell(self, x: torch.Tensor, number: int) -> torch.Tensor:
        return self.up(x) * torch.tensor(number)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cell(self.cell(x, 2), 3)


def test_code_that_cannot_be_mapped_runs_node_by_node() -> None:
    model = Unmapped().eval()
    elements = [torch.randn(1, 3) for _ in range(4)]
    fast = eb.autobatch(model, ["cell"], fallback=["cell"])
    for _ in range(2):
        assert_equal(fast(elements), [model(one) for one in elements])


def test_never_measures_nothing_and_other_words_are_errors(model: nn.Module) -> None:
    fast = eb.autobatch(model, CELLS, fallback="never")
    assert_equal(fast(ELEMENTS), expected(model))
    assert not fast.left_to_pytorch
    assert not fast._library.fallback._times
    for wrong in ("always", 3, [1]):
        with pytest.raises(ConfigError, match="fallback"):
            eb.autobatch(model, CELLS, fallback=wrong)
