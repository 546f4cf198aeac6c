"""Outputs that are several values side by side are stages, and each part is what PyTorch has there."""

from __future__ import annotations

import numpy as np
import pytest

import edbatch_tvm as eb

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402


class Gated(nn.Module):
    """Parts of one width and of several, parts that are operands, nested ones, and one that a second product makes."""

    def __init__(self, width: int, other: int) -> None:
        super().__init__()
        self.gates, self.further = nn.Linear(2 * width, 3 * width), nn.Linear(width, other)

    def forward(self, h: torch.Tensor, c: torch.Tensor, e: torch.Tensor) -> tuple[torch.Tensor, ...]:
        i, o, u = self.gates(torch.cat([h, c], -1)).chunk(3, -1)
        c = i.sigmoid() * u.tanh() + c
        h = o.sigmoid() * c.tanh()
        return torch.cat([h, c], -1), torch.cat([torch.cat([e, c], -1).relu(), self.further(c), h], -1)


class Attended(nn.Module):
    """Parts that reduce rows, beside one that does not."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.product = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, hs: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.product(hs.sum(0, keepdim=True)), x, hs.sum(0, keepdim=True)], -1)


@pytest.mark.parametrize(("width", "other", "target"), [(50, 50, "llvm"), (16, 7, "llvm"), (5, 1, "cuda-emulated")])
def test_each_part_is_written_in_its_place(width: int, other: int, target: str) -> None:
    torch.manual_seed(width)
    module = Gated(width, other)
    example = torch.randn(1, width), torch.randn(1, width), torch.randn(1, other)
    model = eb.compile(*eb.cells_from_torch({"cell": module}, {"cell": example}), target=target)
    assert model.paths == {"cell": "stage"}
    given = [(torch.randn(1, width), torch.randn(1, width), torch.randn(1, other)) for _ in range(7)]
    given[3][1][0, 1] = float("nan")
    given[4][2][0, 0] = float("inf")
    instances = []
    for arguments in given:
        b = model.builder()
        instances.append(b.finish(list(b.call("cell", *(one.numpy() for one in arguments)))))
    for found, arguments in zip(model(instances), given, strict=True):
        for one, wanted in zip(found, module(*arguments), strict=True):
            np.testing.assert_allclose(one, wanted.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("children", [0, 1, 3])
def test_parts_that_reduce_rows(children: int) -> None:
    module = Attended(6)
    example = {"cell": (torch.randn(1, 6), torch.randn(3, 6))}
    model = eb.compile(*eb.cells_from_torch({"cell": module}, example, {"cell": ["hs"]}))
    assert model.paths == {"cell": "stage"}
    x, hs = torch.randn(1, 6), torch.randn(children, 6)
    b = model.builder()
    (found,) = model([b.finish([b.call("cell", x.numpy(), list(hs.numpy()))])])[0]
    np.testing.assert_allclose(found, module(x, hs).detach().numpy(), atol=1e-5)
