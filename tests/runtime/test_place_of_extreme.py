"""``argmax`` and ``argmin`` in stages: the first place of the extreme, or of NaN, as in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edbatch_tvm as eb

HASWELL = {"kind": "llvm", "mcpu": "haswell"}


class Places(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.argmax(-1).to(x.dtype), x.argmin(-1, keepdim=True).to(x.dtype) * 2


class OfHeads(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.reshape(2, -1).argmax(-1) + 1).to(x.dtype)


def _rows(width: int, dtype: str) -> np.ndarray:
    rows = np.random.default_rng(width).normal(size=(24, width)).astype(dtype)
    rows[3:9] = np.array([0, np.nan, -np.inf, np.inf, -3e38, 1e-41])[:, None]
    rows[9, width // 2] = rows[10, [0, -1]] = np.nan
    rows[11, width // 3] = rows[12, [0, -1]] = np.inf
    rows[13, width // 3] = rows[14, [0, -1]] = -np.inf
    rows[15:20] = np.round(rows[15:20])
    return rows


@pytest.mark.parametrize(
    ("width", "target", "dtype"),
    [
        (86, "llvm", "float32"),
        *(pytest.param(w, HASWELL, "float32", marks=pytest.mark.slow) for w in (2, 6, 24, 70, 300)),
        *(pytest.param(w, "llvm", "float64", marks=pytest.mark.slow) for w in (2, 70)),
    ],
)
def test_places_are_those_of_pytorch(width: int, target: Any, dtype: str) -> None:
    rows = _rows(width, dtype)
    modules = {"places": Places(), "of_heads": OfHeads()}
    example = torch.from_numpy(rows[0]).float()
    mod, weights = eb.cells_from_torch(modules, dict.fromkeys(modules, (example,)))
    model = eb.compile(mod, weights, target=target, dtype=dtype)
    assert set(model.paths.values()) == {"stage"}
    for name, module in modules.items():
        builder = model.builder()
        results = model([builder.finish(builder.call(name, row)) for row in rows])
        for row, result in zip(rows, results, strict=True):
            expected = module(torch.from_numpy(row))
            pairs = zip(result, expected, strict=True) if isinstance(expected, tuple) else [(result, expected)]
            for one, other in pairs:
                np.testing.assert_array_equal(np.asarray(one).reshape(-1), other.numpy().reshape(-1), err_msg=str(row))
