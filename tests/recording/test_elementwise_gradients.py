"""Element-wise operators: values and gradients of special values, and every pair of them, are PyTorch's."""

from __future__ import annotations

import pytest

import edbatch_tvm as eb

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

NAN, INF = float("nan"), float("inf")
SPECIAL = torch.tensor([0.0, -0.0, NAN, INF, -INF, 1.0, -1.0, 3.5, -2.5, 3e38, -1e-30])
X, Y = SPECIAL.repeat(11, 1).reshape(-1), SPECIAL.repeat(11, 1).T.reshape(-1)
FUNCTIONS = {
    "copysign": torch.copysign,
    "hypot": torch.hypot,
    "logaddexp": torch.logaddexp,
    "copysign of a number": lambda x, y: torch.copysign(x, -2.0) * y,
    "fmax": torch.fmax,
    "fmin": torch.fmin,
    "maximum": torch.maximum,
    "ldexp": torch.ldexp,
    "logaddexp2": torch.logaddexp2,
    "exp2": lambda x, y: torch.exp2(x) + y,
}
QUICK = ("copysign", "hypot", "logaddexp")


class Pairs(nn.Module):
    """A function of two tensors."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def cell(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The function."""
        return FUNCTIONS[self.name](x, y)

    def forward(self, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """One cell."""
        return self.cell(*pair)


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    return X.clone().requires_grad_(), Y.clone().requires_grad_()


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FUNCTIONS]
)
@torch.enable_grad()
def test_values_and_gradients_of_special_values(name: str) -> None:
    model = Pairs(name)
    fast = eb.autobatch(model, ["cell"])
    fast([pair()])  # a first call compiles, and is computed by the model's own code
    given, plain = [pair(), pair()], pair()
    double = X.double().requires_grad_(), Y.double().requires_grad_()
    found, wanted, exact = fast(given), model(plain), model(double)
    assert not fast.breaks
    weights = torch.linspace(0.5, 1, len(X))
    torch.autograd.backward(found, [weights] * 2)
    wanted.backward(weights)
    exact.backward(weights.double())
    for one, mine in zip(found, given, strict=True):
        assert_right(one, wanted, exact)
        for value, single, wide in zip(mine, plain, double, strict=True):
            assert_right(value.grad, single.grad, wide.grad)


def assert_right(found: torch.Tensor, single: torch.Tensor, double: torch.Tensor) -> None:
    """Equal to PyTorch's, or to what it gives in float64 where float32 overflows on its way."""
    overflows = single.isinf() & double.float().isfinite() & found.isfinite()
    wanted = torch.where(overflows, double.float(), single)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6, equal_nan=True)


OF_ONE = {
    "log1p": torch.log1p,
    "expm1": torch.expm1,
    "elu": nn.functional.elu,
    "celu": nn.functional.celu,
    "softplus": nn.functional.softplus,
}
NEAR_AND_FAR = [1e-10, -1e-10, 1e-7, -1e-7, 1e-4, -0.5, -0.9999, -1.5, 20.0, -20.0, 100.0, -100.0, 1e10]


class OfOne(nn.Module):
    """Functions of one tensor."""

    def cell(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """One of them."""
        return OF_ONE[name](x)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """A cell for each."""
        return [self.cell(x, name) for name in OF_ONE]


@torch.enable_grad()
def test_gradients_of_one_tensor() -> None:
    model = OfOne()
    fast = eb.autobatch(model, ["cell"])
    # Of a NaN, PyTorch's gradient of elu is NaN or 1, depending on where it lies.
    x = torch.cat([SPECIAL[~SPECIAL.isnan()], torch.tensor(NEAR_AND_FAR)])
    fast([x.clone().requires_grad_()])
    assert not fast.breaks
    for place, name in enumerate(OF_ONE):
        given, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
        [found], wanted = fast([given]), model(plain)
        for results in (found, wanted):
            results[place].backward(torch.ones(len(x)))
        torch.testing.assert_close(found[place], wanted[place], rtol=1e-5, atol=1e-9, equal_nan=True, msg=name)
        torch.testing.assert_close(given.grad, plain.grad, rtol=1e-5, atol=1e-8, equal_nan=True, msg=name)
