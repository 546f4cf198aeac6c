"""Cells that write into tensors that they have not made: what a model holds is what its own code leaves there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import edbatch_tvm as eb  # noqa: E402
from tests.recording.checks import assert_equal  # noqa: E402

COUNTS = torch.zeros(3)


def _everywhere(x: torch.Tensor) -> torch.Tensor:
    COUNTS[1] += 1
    return x * 2


def _add(model: Model, x: torch.Tensor) -> torch.Tensor:
    model.count += 1
    return x


def _data(model: Model, x: torch.Tensor) -> torch.Tensor:
    model.linear.bias.data[0] += 0.5
    return x


def _item(model: Model, x: torch.Tensor) -> torch.Tensor:
    model.memory[1] = x.detach()[0]
    return x + model.memory[0]


def _out(model: Model, x: torch.Tensor) -> torch.Tensor:
    torch.add(model.count, 2, out=model.count)
    return x


def _zero(model: Model, x: torch.Tensor) -> torch.Tensor:
    model.memory.zero_()
    return x


def _array(model: Model, x: torch.Tensor) -> torch.Tensor:
    model.memory.numpy()[2] += 1
    return x


def _view(model: Model, x: torch.Tensor) -> torch.Tensor:
    row = model.memory[2].view(2, 2)
    row.t().add_(1)
    return x


def _foreach(model: Model, x: torch.Tensor) -> torch.Tensor:
    torch._foreach_add_([model.count, model.memory], 1.0)
    return x


def _global(_model: Model, x: torch.Tensor) -> torch.Tensor:
    return _everywhere(x)


WRITES: dict[str, Callable[[Model, torch.Tensor], torch.Tensor]] = {
    "buffer": _add,
    "parameter's data": _data,
    "attribute": _item,
    "out": _out,
    "zero_": _zero,
    "NumPy": _array,
    "view": _view,
    "foreach": _foreach,
    "global": _global,
}
QUICK = ("buffer", "attribute")


class Model(nn.Module):
    def __init__(self, write: str) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.write = write
        self.register_buffer("count", torch.zeros(()))
        self.memory = torch.arange(12.0).reshape(3, 4)

    def step(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(WRITES[self.write](self, self.linear(x)))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        state = rows[:1]
        for row in rows.split(1):
            state = self.step(state + row)
        return state

    def held(self) -> list[torch.Tensor]:
        return [one.detach().clone() for one in (*self.state_dict().values(), self.memory, COUNTS)]


@pytest.mark.parametrize(
    ("write", "gradients"),
    [
        pytest.param(write, gradients, marks=[pytest.mark.slow] * (write not in QUICK or gradients))
        for write in WRITES
        for gradients in (False, True)
    ],
)
@pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning", "ignore::edbatch_tvm.errors.CellWarning")
def test_state_is_that_of_the_model(write: str, gradients: bool) -> None:
    torch.manual_seed(0)
    model = Model(write).eval()
    elements = [torch.randn(rows, 4) for rows in (3, 1, 2)]
    found: list[Any] = []
    for batched in (False, True):
        COUNTS.zero_()
        own = copy.deepcopy(model)
        fast = eb.autobatch(own, cells=["step"]) if batched else lambda some, own=own: [own(one) for one in some]
        with torch.set_grad_enabled(gradients):
            found.append([[fast(elements), own.held()] for _ in range(3)])
    assert_equal(found[1], found[0])
