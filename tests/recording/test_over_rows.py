"""Functions of all rows of a list, such as attention over them: one cell for any number of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import edbatch_tvm as eb
from tests.recording.checks import assert_equal

H = 4


class Over(nn.Module):
    """A cell that returns rows, and whatever `function` computes from these and a vector."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.cell = nn.Linear(H, H)
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        rows = self.cell(x)
        return self.function(rows, torch.tanh(rows[0]))


def _attention(rows: Any, query: Any) -> Any:
    weights = torch.softmax(query @ rows.T, -1)
    return weights @ rows, F.log_softmax(rows @ query, dim=0).sum(), torch.cumsum(rows, 0).tanh().sum(0)


def _forms(rows: Any, query: Any) -> Any:
    batch = rows[None]
    scores = torch.bmm(query[None, None], batch.transpose(1, 2))
    return [
        torch.bmm(F.softmax(scores, dim=2), batch).squeeze(0),
        (rows.softmax(0) * rows).sum(0),
        (torch.log_softmax(rows, dim=-2) * rows).sum(0),
        torch.softmax(query[None] @ rows.mT, 1),
        torch.matmul(rows[-1:], rows.t()),
        rows[:, 1].softmax(0),
        F.softmin(rows @ query, 0),
        rows[1:].cumsum(0),
        F.softmax(rows, dim=0, dtype=torch.float32),
    ]


def _weighted(rows: Any, query: Any) -> Any:
    count = rows.shape[0]
    mask = (torch.arange(count) % 3 != 1).float()
    scores = (rows * query).sum(-1)[None]
    some = F.softmax(scores, 1) * mask[None] + 1e-20
    some = some / some.sum(1, keepdim=True)
    kept = torch.where(mask[None] > 0, scores, torch.full((1, count), -1.0))
    return (some.unsqueeze(2) * rows).sum(1), mask * scores, scores - mask.double().to(rows.dtype), kept.amax(1)


def _masked(rows: Any, query: Any) -> Any:
    scores = rows @ query
    some = scores.masked_fill(scores < scores.max(), float("-inf"))
    none, much = scores.masked_fill(scores == scores, float("-inf")), scores / 0
    return [function(one, 0) for function in (torch.softmax, F.log_softmax) for one in (some, none, much)]


def _cells(fast: eb.AutoBatched) -> int:
    assert fast.compiled is not None
    fused = sum(type(made) is tuple for made in fast._library.fused.values())  # of operators that came together since
    return len(fast.compiled.signature.names) - fused


@pytest.mark.parametrize("function", [_attention, _weighted, pytest.param(_forms, marks=pytest.mark.slow)])
def test_one_cell_for_any_number_of_rows(function: Callable[[Any, Any], Any]) -> None:
    model = Over(function)
    fast = eb.autobatch(model, cells=["cell"])
    known = 0
    for counts in ((2, 3), (1, 4, 9, 5), (17, 2)):
        elements = [torch.randn(count, H) for count in counts]
        assert_equal(fast(elements), [model(one) for one in elements])
        assert not fast.breaks
        if 1 in counts:  # a row alone is a value
            known = _cells(fast)
    assert _cells(fast) == known
    fast([torch.randn(count, H) for count in range(1, 60)])
    assert _cells(fast) == known


@pytest.mark.slow
def test_infinities_and_masks() -> None:
    model = Over(_masked)
    fast = eb.autobatch(model, cells=["cell"])
    elements = [torch.randn(count, H) for count in (2, 3, 1)]
    assert_equal(fast(elements), [model(one) for one in elements])


@pytest.mark.slow
def test_gradients() -> None:
    model = Over(_attention).double()
    fast, weights = eb.autobatch(model, cells=["cell"]), [*model.parameters()]
    for counts in ((2, 3), (1, 5)):
        elements = [torch.randn(count, H, dtype=torch.float64) for count in counts]
        with torch.enable_grad():
            found, wanted = (
                torch.autograd.grad(sum(part.square().sum() for result in results for part in result), weights)
                for results in (fast(elements), [model(one) for one in elements])
            )
        for one, other in zip(found, wanted, strict=True):
            assert (one - other).abs().max() <= 1e-12 * max(other.abs().max() for other in wanted)
