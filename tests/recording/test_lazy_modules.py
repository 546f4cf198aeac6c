"""Lazy modules: the first call runs by PyTorch and gives their parameters a shape; later calls are batched."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import RecordingError


class Reader(nn.Module):
    """A recurrent sum whose cells do not know their inputs' sizes."""

    def __init__(self, *lazy: nn.Module) -> None:
        super().__init__()
        self.cell = nn.Sequential(*lazy)
        self.readout = nn.LazyLinear(3)

    def forward(self, words: list[torch.Tensor]) -> torch.Tensor:
        state = torch.zeros(4)
        for word in words:
            state = torch.tanh(self.cell(word) + state)
        result: torch.Tensor = self.readout(state)
        return result


@pytest.mark.parametrize("cells", [None, ["cell", "readout"]], ids=["chosen", "named"])
def test_first_call_initialises_and_the_next_is_batched(cells: Any) -> None:
    model = Reader(nn.LazyLinear(4)).eval()
    eager = copy.deepcopy(model)
    data = [[torch.randn(6) for _ in range(length)] for length in (1, 3, 2)]
    fast = eb.autobatch(model, cells)
    for _ in range(3):  # initialises, chooses cells where they are not named, computes in batches
        torch.manual_seed(7)
        expected = [eager(words) for words in data]
        torch.manual_seed(7)
        for one, other in zip(fast(data), expected, strict=True):
            assert torch.allclose(one, other, atol=1e-6)
    assert fast.compiled is not None
    assert fast.batches > 0


def test_what_no_element_calls_stays_lazy() -> None:
    model = Reader(nn.LazyLinear(4)).eval()
    model.unused = nn.LazyBatchNorm1d()
    fast = eb.autobatch(model)
    data = [[torch.randn(6)], [torch.randn(6)]]
    assert [one.shape for one in fast(data)] == [torch.Size([3])] * 2
    assert all(torch.equal(one, model(words)) for one, words in zip(fast(data), data, strict=True))
    assert "lazy modules" in str(fast.breaks[0])


def test_an_element_is_not_recorded_before() -> None:
    fast = eb.autobatch(Reader(nn.LazyLinear(4)).eval(), ["cell"])
    with pytest.raises(RecordingError, match="lazy modules"):
        fast.record([torch.randn(6)])
