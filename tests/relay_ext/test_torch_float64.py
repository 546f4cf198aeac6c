"""``cells_from_torch`` of double modules: float64 throughout, constants included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import CellError

H = 12


class ChildSum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.iou, self.forget = nn.Linear(H, 3 * H), nn.Linear(H, H)
        self.embedding = nn.Embedding(7, H)

    def forward(self, word: torch.Tensor, hs: torch.Tensor, cs: torch.Tensor) -> Any:
        i, o, u = self.iou(hs.sum(0) + self.embedding(word)).chunk(3)
        c = torch.sigmoid(i) * torch.tanh(u) + (torch.sigmoid(self.forget(hs)) * cs).sum(0)
        return torch.sigmoid(o) * torch.tanh(c), c


class Activations(nn.Module):
    """Numbers that float32 does not hold, such as 0.1, are constants of float64."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.linspace(0, 1, H))

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> Any:
        y = 0.1 * F.gelu(x) + F.elu(h, 0.7) + F.silu(x) + F.leaky_relu(h, 0.3) + self.shift
        y = y + x.clamp(-0.3, 0.3) + torch.pow(x.abs(), 1.7) + x.masked_fill(h > 0, 1 / 3) + torch.where(x > 0, x, h)
        y = y + torch.log1p(x.abs()) + torch.expm1(h) + torch.rsqrt(h.abs() + 0.1) + torch.erf(x) + torch.sin(h)
        return y, y + torch.ones_like(x) / 3 + torch.full((H,), 1 / 3, dtype=x.dtype)


class Rows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.gru = nn.LayerNorm(H), nn.GRUCell(H, H)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> Any:
        y = self.norm(x) + self.gru(x, h)
        return y, torch.log_softmax(y, -1), F.softmax(y, -1), torch.logsumexp(y, 0), y.mean() / 3, F.normalize(y, dim=0)


class Order(nn.Module):
    def forward(self, x: torch.Tensor, h: torch.Tensor) -> Any:
        close = torch.cat([x, x + 1e-12, h])  # equal as float32
        return torch.sort(close).values, torch.cumsum(x, 0), close.argmax().to(x.dtype)


class Casts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(H, H)

    def forward(self, x: torch.Tensor) -> Any:
        return self.linear(x).float() * 0.5, self.linear(x.float().double())


def compiled(module: nn.Module, arguments: tuple[Any, ...], variadic: list[str] | None = None) -> eb.Model:
    cells = eb.cells_from_torch({"cell": module}, {"cell": arguments}, {"cell": variadic} if variadic else None)
    return eb.compile(*cells)


def check(module: nn.Module, results: list[np.ndarray], arguments: tuple[Any, ...]) -> None:
    with torch.no_grad():
        expected = module(*arguments)
    for found, wanted in zip(results, expected, strict=True):
        wanted = wanted.numpy()
        assert found.dtype == wanted.dtype
        tolerance = 1e-13 if wanted.dtype == np.float64 else 1e-5
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [Activations, Rows, Order])
def test_operators(kind: type[nn.Module], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module, arguments = kind().to(dtype), (torch.randn(H, dtype=dtype), torch.randn(H, dtype=dtype))
    model = compiled(module, arguments)
    b = model.builder()
    check(module, model([b.finish(list(b.call("cell", *arguments)))])[0], arguments)


def test_variadic_rows_and_words() -> None:
    torch.manual_seed(0)
    module = ChildSum().double()
    arguments = (torch.tensor(3), torch.randn(3, H).double(), torch.randn(3, H).double())
    model = compiled(module, arguments, ["hs", "cs"])
    assert model.paths == {"cell": "stage"}
    b = model.builder()
    check(module, model([b.finish(list(b.call("cell", *arguments[1:], word=3)))])[0], arguments)


def test_casts() -> None:
    torch.manual_seed(0)
    module, x = Casts().double(), torch.randn(H).double()
    model = compiled(module, (x,))
    b = model.builder()
    check(module, model([b.finish(list(b.call("cell", x)))])[0], (x,))


def test_an_operator_that_would_lose_digits_is_refused() -> None:
    module = nn.Conv1d(2, 2, 3, bias=False).double()
    with pytest.raises(CellError, match="conv1d of float64 in float32"):
        eb.cells_from_torch({"cell": module}, {"cell": (torch.randn(1, 2, 8).double(),)})
