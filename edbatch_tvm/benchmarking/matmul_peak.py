"""The speed of this machine's matrix product, to hold kernels against."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

SIZE = 2048
REPEATS = 5


def peak_gflops(size: int = SIZE, repeats: int = REPEATS, dtype: str = "float32") -> float:
    """GFLOP/s of a `size`³ matrix product of `dtype`, the best of `repeats`: by torch, or by NumPy without torch."""
    product = _torch_product(size, dtype) or _numpy_product(size, dtype)
    best = float("inf")
    for _ in range(repeats + 1):  # the first one also warms up, and may count
        begin = perf_counter()
        product()
        best = min(best, perf_counter() - begin)
    return 2 * size**3 / best / 1e9


def _torch_product(size: int, dtype: str) -> Callable[[], Any] | None:
    try:
        import torch
    except ImportError:
        return None
    of = getattr(torch, dtype)
    left, right = torch.rand(size, size, dtype=of), torch.rand(size, size, dtype=of)
    out = torch.empty(size, size, dtype=of)
    return lambda: torch.mm(left, right, out=out)


def _numpy_product(size: int, dtype: str) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    left, right = rng.random((size, size)).astype(dtype), rng.random((size, size)).astype(dtype)
    out = np.empty((size, size), dtype)
    return lambda: np.matmul(left, right, out=out)
