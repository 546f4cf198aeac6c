"""Ordinary tensors that recorded values were written into: they become ordinary again, if somebody has them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.recording.lazy import LazyTensor
from tests.recording.checks import assert_equal


class Writes(nn.Module):
    """States that are written one by one, and perhaps kept."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, kept: list[Any] | None) -> torch.Tensor:
        states = torch.zeros(3, 4)
        for number, row in enumerate(x):
            states[number] = self.cell(row)
        if kept is not None:
            kept += [states, (states, {"again": states})]
        return states.sum(0)


@pytest.mark.parametrize("keeps", [False, True])
def test_only_tensors_that_somebody_has_are_computed(monkeypatch: pytest.MonkeyPatch, keeps: bool) -> None:
    model = Writes()
    fast = eb.autobatch(model, cells=["cell"])
    fast([(torch.ones(3, 4), None)] * 5)
    computed: list[LazyTensor] = []
    plain = LazyTensor.computed

    def counted(tensor: LazyTensor) -> torch.Tensor:
        computed.append(tensor)
        return plain(tensor)

    monkeypatch.setattr(LazyTensor, "computed", counted)
    elements = [(torch.randn(3, 4), [] if keeps else None) for _ in range(6)]
    results = fast(elements)
    assert len(computed) == 6 * keeps
    computed.clear()
    for (x, kept), result in zip(elements, results, strict=True):
        assert_equal(result, model(x, None))
        if kept is not None:
            states = torch.stack([model.cell(row) for row in x])
            assert kept[0] is kept[1][0]
            assert_equal(kept, [states, (states, {"again": states})])


class ReadsAndWrites(nn.Module):
    """Values that are read into an ordinary tensor, which a view shares, and back into a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h = self.cell(x)
        states = torch.ones(2, 4)
        flat = states.view(-1)
        flat[1] = h.reshape(-1)[0]
        states[1] = h[0] * 2
        return self.cell(states[:1]), h + states, states, h.clone().detach().sum() * float(h.sum())


@pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning")
@pytest.mark.parametrize("target", ["numpy", "llvm"])
def test_values_that_are_read_have_the_dtype_of_the_model(target: str) -> None:
    model = ReadsAndWrites()
    fast = eb.autobatch(model, cells=["cell"], target=target)
    for count in (1, 3):
        elements = [torch.randn(1, 4) for _ in range(count)]
        results = fast(elements)
        assert {one.dtype for result in results for one in result} == {torch.float32}
        assert_equal(results, [model(x) for x in elements])
