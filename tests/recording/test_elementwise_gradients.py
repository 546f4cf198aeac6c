"""Element-wise operators of two tensors: values and gradients of every pair of special values are PyTorch's."""

from __future__ import annotations

import pytest

import edbatch_tvm as eb

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

NAN, INF = float("nan"), float("inf")
SPECIAL = torch.tensor([0.0, -0.0, NAN, INF, -INF, 1.0, -1.0, 3.5, -2.5, 3e38, -1e-30])
X, Y = SPECIAL.repeat(11, 1).reshape(-1), SPECIAL.repeat(11, 1).T.reshape(-1)
FUNCTIONS = [
    torch.fmax,
    torch.fmin,
    torch.maximum,
    torch.ldexp,
    torch.logaddexp,
    torch.logaddexp2,
    lambda x, y: torch.exp2(x),
    lambda x, y: torch.exp2(y),
]


class Pairs(nn.Module):
    """Each function of its own copy of two tensors."""

    def cell(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Results beside each other; `x` and `y` are rows for each function."""
        return torch.cat([one(x[:, at], y[:, at]) for at, one in enumerate(FUNCTIONS)], 1)

    def forward(self, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """One cell."""
        return self.cell(*pair)


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    x, y = (one.expand(1, len(FUNCTIONS), -1).clone().requires_grad_() for one in (X, Y))
    return x, y


@torch.enable_grad()
def test_values_and_gradients_of_special_values() -> None:
    model = Pairs()
    fast = eb.autobatch(model, ["cell"])
    given, plain = [pair() for _ in range(2)], [pair() for _ in range(2)]
    found, wanted = fast(given), [model(one) for one in plain]
    assert not fast.breaks
    weights = torch.linspace(0.5, 2, found[0].numel()).reshape(1, -1)
    torch.autograd.backward(found, [weights] * 2)
    torch.autograd.backward(wanted, [weights] * 2)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, equal_nan=True)
    for mine, others in zip(given, plain, strict=True):
        for one, other in zip(mine, others, strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-6, equal_nan=True)
