"""Cells that draw random numbers compute what the model itself does from the same seed, and leave the same state."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import edbatch_tvm as eb  # noqa: E402
from tests.recording.checks import assert_equal  # noqa: E402

KINDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "dropout": nn.Dropout(0.5),
    "dropout in place": nn.Dropout(0.5, inplace=True),
    "function dropout": lambda x: F.dropout(F.dropout(x, 0.2) + F.dropout(x, 0.3), 0.1),
    "torch.dropout": lambda x: torch.dropout(x, 0.5, True),
    "alpha dropout": nn.AlphaDropout(0.3),
    "feature alpha dropout": nn.FeatureAlphaDropout(0.3),
    "dropout1d": nn.Dropout1d(0.5),
    "rrelu": nn.RReLU(),
    "gumbel_softmax": lambda x: F.gumbel_softmax(x, hard=True),
    "bernoulli": lambda x: x * torch.bernoulli(torch.sigmoid(x.detach())),
    "rand_like": lambda x: x + torch.rand_like(x),
    "randn": lambda x: x + torch.randn(1, 8),
    "normal_": lambda x: x + x.new_empty(1, 8).normal_(),
    "multinomial": lambda x: x * torch.multinomial(torch.softmax(x.detach(), -1), 1).to(x.dtype),
}
QUICK = {
    ("dropout", False, "step"),
    ("randn", False, "step"),
    ("dropout", True, "step"),
    ("gumbel_softmax", True, "linear"),
}


class Model(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.kind = kind

    def step(self, x: torch.Tensor) -> torch.Tensor:
        return KINDS[self.kind](torch.tanh(self.linear(x)))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        state = rows[:1]
        for row in rows.split(1):
            state = self.step(state + row)
        return state


@pytest.mark.parametrize(
    ("kind", "gradients", "cell"),
    [
        pytest.param(kind, gradients, cell, marks=[pytest.mark.slow] * ((kind, gradients, cell) not in QUICK))
        for kind in KINDS
        for gradients in (False, True)
        for cell in ("step", "linear")
    ],
)
@pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning", "ignore::edbatch_tvm.errors.CellWarning")
def test_draws_are_those_of_the_model(kind: str, gradients: bool, cell: str) -> None:
    torch.manual_seed(0)
    model = Model(kind).train()
    fast = eb.autobatch(model, cells=[cell])
    elements = [torch.randn(rows, 8) for rows in (3, 1, 4)]
    for _ in range(2):  # the first call compiles
        found = []
        for run in (lambda: [model(one) for one in elements], lambda: fast(elements)):
            torch.manual_seed(1)
            with torch.set_grad_enabled(gradients):
                found.append([*run(), torch.rand(3)])
        for one, other in zip(*found, strict=True):
            assert_equal(other, one)
    if kind == "dropout":
        assert fast.batches
        assert not fast.breaks
