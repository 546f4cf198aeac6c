"""Rows of recorded tensors at indices of every form, read and written as PyTorch does."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import BreakWarning
from edbatch_tvm.recording import indexed_rows
from tests.recording.checks import assert_equal

B, T, H = 2, 5, 4


def t(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


INDICES: dict[str, Any] = {
    "vector": (t(1, 0, 1),),
    "vector and integer": (t(1), 3),
    "integer and vector": (-1, t(0, -1, 2)),
    "vectors": (t(1, 0), t(4, -2)),
    "vectors that are broadcast": (t(1, 0), t(2)),
    "vector and slice": (t(0, 1), slice(1, 4)),
    "slice and vector": (slice(None), t(3, 3)),
    "vector beside an ellipsis": (..., t(2, 1)),
    "vector of a row": (0, 1, t(3, 0)),
    "matrix": (torch.tensor([[1, 0], [0, 0]]), 2),
    "no number": (torch.empty(0, dtype=torch.int64), 2),
    "mask": (torch.tensor([True, False]), 1),
    "None": (None, t(1), 2),
    "integers": (1, 2),
    "slices": (slice(None), slice(0, 4, 2)),
    "negative slice": (0, slice(-2, None)),
    "number in a tensor": (torch.tensor(1), torch.tensor(3)),
    "int32": (t(1, 0).int(), 3),
}
FAST = {"vector and integer", "integer and vector", "vectors"}
"""Indices that PyTorch does not see."""


class Net(nn.Module):
    """Reads rows at an index, and writes others there."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(H, H)

    def forward(self, x: torch.Tensor, index: tuple[Any, ...], source: str) -> Any:
        states = torch.stack([torch.stack([self.step(row) for row in rows]) for rows in x])
        read = states[index] * 2
        memory = torch.zeros(B, T, H)
        memory[:, 0] = states[:, 1]
        memory[index] = SOURCES[source](states[index])
        written = torch.tanh(memory)
        states[index] = memory[index] + 1
        return read, written, states.sum(1)


SOURCES: dict[str, Callable[[torch.Tensor], Any]] = {
    "recorded": torch.sigmoid,
    "ordinary": lambda rows: torch.arange(float(rows.numel())).reshape(rows.shape),
    "broadcast": lambda rows: torch.sigmoid(rows.sum()),
    "number": lambda rows: 3.0,
}


def elements_of(name: str) -> list[tuple[Any, ...]]:
    return [(torch.randn(B, T, H), INDICES[name], source) for source in SOURCES for _ in range(2)]


@pytest.fixture(scope="module")
def made() -> tuple[Net, eb.AutoBatched]:
    """A model that has met every index, so that the cells of all are compiled at once."""
    torch.manual_seed(0)
    model = Net()
    fast = eb.autobatch(model, ["step"])
    elements = [element for name in INDICES for element in elements_of(name)]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", BreakWarning)
        for one, found in zip(elements, fast(elements), strict=True):
            assert_equal(found, model(*one))
    return model, fast


@pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")
@pytest.mark.parametrize("name", INDICES)
def test_indices(made: tuple[Net, eb.AutoBatched], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, fast = made
    seen = []
    of_rows = indexed_rows._places
    monkeypatch.setattr(indexed_rows, "_places", lambda *given: seen.append(of_rows(*given)) or seen[-1])
    elements = elements_of(name)
    with torch.no_grad():
        for _ in range(2):
            assert_equal(fast(elements), [model(*one) for one in elements])
    assert (name in FAST) is any(places is not None for places in seen)


@pytest.mark.parametrize("index", [(t(0, B), 1), (t(-B - 1), 0), (0, T), (t(0, 1), t(0, 1, 1))], ids=str)
def test_errors_are_those_of_pytorch(made: tuple[Net, eb.AutoBatched], index: Any) -> None:
    model, fast = made
    element = torch.randn(B, T, H), index, "recorded"
    with torch.no_grad():
        with pytest.raises(IndexError) as wanted:
            model(*element)
        with pytest.raises(IndexError) as found:
            fast([element])
    assert str(wanted.value) in str(found.value)


def test_gradients_of_rows_at_indices(made: tuple[Net, eb.AutoBatched]) -> None:
    model, fast = made
    elements = [(torch.randn(B, T, H), INDICES[name], "recorded") for name in FAST]

    def gradient(results: Any) -> list[torch.Tensor]:
        total = sum((leaf * torch.arange(leaf.numel()).reshape(leaf.shape)).sum() for one in results for leaf in one)
        return list(torch.autograd.grad(total, list(model.parameters())))

    with torch.enable_grad():
        for _ in range(2):
            assert_equal(gradient(fast(elements)), gradient([model(*one) for one in elements]))
