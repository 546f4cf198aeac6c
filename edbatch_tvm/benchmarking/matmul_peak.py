"""The speed of this machine's matrix product, to hold kernels against."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

SIZE = 2048
REPEATS = 5


def peak_gflops(size: int = SIZE, repeats: int = REPEATS) -> float:
    """GFLOP/s of a `size`³ float32 matrix product, the best of `repeats`: by torch, or by NumPy without torch."""
    product = _torch_product(size) or _numpy_product(size)
    best = float("inf")
    for _ in range(repeats + 1):  # the first one warms up and may count all the same
        begin = perf_counter()
        product()
        best = min(best, perf_counter() - begin)
    return 2 * size**3 / best / 1e9


def _torch_product(size: int) -> Callable[[], Any] | None:
    try:
        import torch
    except ImportError:
        return None
    left, right = torch.rand(size, size), torch.rand(size, size)
    out = torch.empty(size, size)
    return lambda: torch.mm(left, right, out=out)


def _numpy_product(size: int) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    left, right = rng.random((size, size), np.float32), rng.random((size, size), np.float32)
    out = np.empty((size, size), np.float32)
    return lambda: np.matmul(left, right, out=out)
