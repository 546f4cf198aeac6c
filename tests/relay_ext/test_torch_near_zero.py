"""``log1p``, ``expm1`` and what PyTorch makes of them are accurate near 0, and right for special values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import edbatch_tvm as eb

INF = float("inf")
X = np.array([1e-30, -1e-30, 1e-9, -1e-9, 1e-4, -1e-4, 0.3, -0.3, 5, -5, 30, -30, 80, -0.9999, -1, -2], "float32")
SPECIAL = np.array([np.nan, INF, -INF, 0.0, -0.0, 3.4e38, -3.4e38, 1.2e-38], "float32")
FUNCTIONS = {"log1p": torch.log1p, "expm1": torch.expm1, "softplus": torch.nn.functional.softplus}


class Both(torch.nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def test_values() -> None:
    x = torch.from_numpy(np.concatenate([X, SPECIAL]))
    modules = {name: Both(function) for name, function in FUNCTIONS.items()}
    model = eb.compile(*eb.cells_from_torch(modules, dict.fromkeys(modules, (x,))))
    b = model.builder()
    results = model([b.finish([b.call(name, x.numpy()) for name in FUNCTIONS])])[0]
    for result, (name, function) in zip(results, FUNCTIONS.items(), strict=True):
        wanted = function(x.double()).float().numpy()
        np.testing.assert_allclose(result, wanted, rtol=5e-7, atol=1.2e-38, err_msg=name)
        zeros = wanted == 0
        assert np.array_equal(np.signbit(result[zeros]), np.signbit(wanted[zeros])), name


def test_one_plus_erf() -> None:
    """The distribution of a normal number, and gelu, have what erf rounds off beside -1: no more than PyTorch's own."""
    functions = {"ndtr": torch.special.ndtr, "gelu": torch.nn.functional.gelu, "erf": torch.erf}
    x = torch.linspace(-6, 6, 4096)
    modules = {name: Both(function) for name, function in functions.items()}
    model = eb.compile(*eb.cells_from_torch(modules, dict.fromkeys(modules, (x,))))
    b = model.builder()
    results = model([b.finish([b.call(name, x.numpy()) for name in functions])])[0]
    for result, (name, function) in zip(results, functions.items(), strict=True):
        exact = function(x.double()).numpy()
        own = np.abs(function(x).numpy() - exact).max()
        assert np.abs(result - exact).max() <= 2 * own, name
