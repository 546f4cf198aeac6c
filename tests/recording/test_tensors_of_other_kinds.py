"""Sparse and nested tensors, parameters and other dtypes made of recorded values: PyTorch computes and goes on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import edbatch_tvm as eb

H = 4
pytestmark = [
    pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.BreakWarning"),
    pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning"),
]

nested = torch.nested.as_nested_tensor

KINDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sparse": lambda h: h.to_sparse(),
    "sparse, and back": lambda h: (h.to_sparse() * 2).to_dense() * h,
    "nested": lambda h: nested([h, h[:2]]).to_padded_tensor(0.0) * h,
    "jagged": lambda h: nested([h, h[:2]], layout=torch.jagged).values() * 2,
    "a parameter": lambda h: nn.Parameter(h.detach()),
    "a parameter without a gradient": lambda h: nn.Parameter(h, requires_grad=False) * h,
    "a product with a parameter": lambda h: nn.Parameter(h.detach(), requires_grad=True) * h,
    "integers of the bits": lambda h: h.view(torch.int64),
    "the bits, and back": lambda h: h.view(dtype=torch.int64).view(torch.float64) * h,
    "the same dtype": lambda h: h.view(torch.float64) * 2,
    "complex": lambda h: h.view(torch.complex128).abs() + h[:2],
}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(H, H)

    def forward(self, x: torch.Tensor, kind: str) -> torch.Tensor:
        return KINDS[kind](self.cell(x))


@pytest.fixture(scope="module")
def made() -> tuple[Any, Model]:
    torch.manual_seed(0)
    model = Model().double()
    return eb.autobatch(model, cells=["cell"]), copy.deepcopy(model)


@pytest.mark.parametrize("records", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_other_kinds(made: tuple[Any, Model], kind: str, records: bool) -> None:
    fast, eager = made
    xs = [torch.randn(H, dtype=torch.float64) for _ in range(2)]
    with torch.set_grad_enabled(records):
        found, wanted = fast([(x, kind) for x in xs]), [eager(x, kind) for x in xs]
    for one, other in zip(found, wanted, strict=True):
        assert type(one) is type(other)
        assert (one.layout, one.dtype, one.requires_grad) == (other.layout, other.dtype, other.requires_grad)
        if one.dtype.is_floating_point:
            torch.testing.assert_close(one.detach().to_dense(), other.detach().to_dense())
    for model, results in ((fast, found), (eager, wanted)):
        model.zero_grad()
        with torch.enable_grad():
            used = [one.to_dense().square().sum() for one in results if one.requires_grad and not one.is_leaf]
            if used:
                torch.stack(used).sum().backward()
    for one, other in zip(fast.parameters(), eager.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.allclose(one.grad, other.grad)
