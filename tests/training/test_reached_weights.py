"""Weights that only unused outputs depend on have no gradient, as in PyTorch: optimizers skip them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.training import reached_weights

H = 3


@I.ir_module
class Cells:
    @R.function
    def first(x: R.Tensor((3,), "float32"), A: R.Tensor((3, 3), "float32")):
        R.func_attr({"num_input": 1})
        y = R.matmul(x, A)
        return y

    @R.function
    def heads(
        x: R.Tensor((3,), "float32"),
        y: R.Tensor((3,), "float32"),
        B: R.Tensor((3, 3), "float32"),
        C: R.Tensor((3,), "float32"),
    ):
        R.func_attr({"num_input": 2})
        a = R.matmul(x, B)
        b = R.multiply(R.tanh(y), R.add(C, C))
        return (a, b)


@pytest.mark.parametrize(
    ("used", "reached"), [((0,), {"A", "B"}), ((1,), {"C"}), ((0, 1), {"A", "B", "C"}), ((), set())]
)
@pytest.mark.parametrize("few", [0, 1, 256], ids=lambda few: f"first {few} operands")
def test_what_cotangents_reach(
    used: tuple[int, ...], reached: set[str], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reached_weights, "_FEW", few)
    weights = {"A": np.eye(H), "B": np.eye(H), "C": np.ones(H)}
    model = eb.compile(Cells, {name: array.astype("float32") for name, array in weights.items()}, training=True)
    builder, row = model.builder(), np.ones(H, "float32")
    heads = builder.call("heads", builder.call("first", row), row)
    cotangents = [[row if place in used else None for place in range(2)]]
    result = model([builder.finish(list(heads))])
    assert {name for name in weights if result.backward(cotangents, retain=True).reaches(name)} == reached
    builder.call("first", row)
    a, _ = builder.call("heads", row, builder.call("first", row))  # A only behind the other head
    gradients = model([builder.finish(a)]).backward([row])
    assert [gradients.reaches(name) for name in "ABC"] == [False, True, False]
    assert not gradients["A"].any()


class TwoHeads(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.actor, self.critic = torch.nn.Linear(H, H), torch.nn.Linear(H, 1)

    def cell(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tanh(self.actor(x)), self.critic(x)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first, _ = self.cell(x)
        return self.cell(first)


def test_an_optimizer_skips_them() -> None:
    torch.manual_seed(0)
    model = TwoHeads()
    plain = copy.deepcopy(model)
    fast = eb.autobatch(model, cells=["cell"])
    optimizers = [torch.optim.AdamW(one.parameters(), lr=0.1, weight_decay=0.5) for one in (plain, model)]
    elements = [torch.randn(H) for _ in range(3)]
    for head in (0, 0, 1, 0, 1):
        for optimizer, results in zip(optimizers, ([plain(x) for x in elements], fast(elements)), strict=True):
            optimizer.zero_grad()
            torch.stack([result[head].sum() for result in results]).sum().backward()
            optimizer.step()
        for one, other in zip(plain.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
