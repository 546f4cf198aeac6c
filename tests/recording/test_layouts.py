"""Buffers whose elements do not lie in memory one by one: read in cells and between them, and changed between calls."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import edbatch_tvm as eb
from edbatch_tvm.errors import BreakWarning

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

DENSE = torch.tensor([[2.0, 0, 0, 1], [0, 0, -1, 0], [0, 3, 0, 0], [0.5, 0, 0, 4]])
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Sparse .* tensor support is in beta state")
    LAYOUTS = {
        "coo": DENSE.to_sparse(),
        "csr": DENSE.to_sparse_csr(),
        "csc": DENSE.to_sparse_csc(),
        "bsr": DENSE.to_sparse_bsr((2, 2)),
        "mkldnn": DENSE.to_mkldnn(),
    }


class Mixing(nn.Module):
    """Rows times a buffer, in a cell or outside."""

    def __init__(self, mixing: torch.Tensor, inside: bool) -> None:
        super().__init__()
        self.linear, self.inside = nn.Linear(4, 4), inside
        self.register_buffer("mixing", mixing)

    def mixed(self, h: torch.Tensor) -> torch.Tensor:
        if self.mixing.layout is torch._mkldnn:
            return self.mixing.to_dense() @ h
        return self.mixing @ h

    def cell(self, x: torch.Tensor) -> torch.Tensor:
        """Of a column."""
        h = torch.tanh(self.linear(x)).unsqueeze(-1)
        return (self.mixed(h) if self.inside else h).squeeze(-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The cell, twice."""
        h = self.cell(self.cell(x))
        return h if self.inside else self.mixed(h.unsqueeze(-1)).squeeze(-1)


def scaled(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.to_dense() * 3).to_mkldnn() if tensor.layout is torch._mkldnn else tensor * 3


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("layout", ["coo", *(pytest.param(one, marks=pytest.mark.slow) for one in list(LAYOUTS)[1:])])
def test_buffers_of_every_layout(layout: str, inside: bool) -> None:
    model = Mixing(LAYOUTS[layout], inside)
    fast = eb.autobatch(model, ["cell"])
    inputs = [torch.randn(4) for _ in range(6)]

    def check() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BreakWarning)
            found = fast(inputs)
        for one, x in zip(found, inputs, strict=True):
            torch.testing.assert_close(one, model(x), rtol=1e-5, atol=1e-6)

    check()
    check()
    assert fast.batches or (inside and layout == "mkldnn")  # which is not exported
    model.mixing = scaled(model.mixing)
    check()
    if layout != "mkldnn":
        change: Any = model.mixing._values() if layout == "coo" else model.mixing.values()
        change.mul_(-2)
        check()
