"""Whether results of a cell are those of PyTorch.

Let y be what PyTorch computes in float64 from the same inputs, p what it computes in float32 on the CPU, c the largest
change of y when every input x is moved to x (1 ± 2⁻²³), signs at random, in four tries, and s the largest c of the
result. A result r is right if

- r is NaN where p is, and the infinity that p is; or
- r and p are finite and ``|r - y| <= 2e-6 |y| + 4 |p - y| + 16 c + 2 s + 2.4e-38``; or
- p and y are not of one kind (NaN, an infinity, finite) and r is what y is: where p overflows on the way, or one of
  PyTorch's two kernels pads with zeros that the other does not multiply by infinity.

The first summand is for the rounding of the operator itself, the second grants no less than PyTorch's own float32
has, the third and fourth what the conditioning of the operator makes of the rounding of inputs; the last lets
subnormal numbers be flushed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

EPSILON, SMALLEST, GREATEST = 2.0**-23, 2.4e-38, float(np.finfo("float32").max)

Run = Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]


@dataclass
class Expected:
    """What one result has to be: PyTorch's float32 value, its float64 value, and how far off one may be."""

    single: np.ndarray
    double: np.ndarray
    tolerance: np.ndarray


def expected(narrow: Run, wide: Run, inputs: Sequence[torch.Tensor]) -> list[Expected]:
    """What each result of an operator has to be; `narrow` runs it in float32, `wide` in float64."""
    single = _arrays(narrow(inputs))
    try:
        double = _arrays(wide(inputs))
        moved = [_arrays(wide(_moved(inputs, seed))) for seed in range(4)]
    except RuntimeError:  # no float64 kernel
        double, moved = single, []
    if [array.shape for array in single] != [array.shape for array in double]:
        double, moved = single, []
    results = []
    with np.errstate(all="ignore"):
        for number, (p, y) in enumerate(zip(single, double, strict=True)):
            change = np.zeros(y.shape)
            for other in moved:
                change = np.maximum(change, np.nan_to_num(np.abs(other[number] - y), nan=0, posinf=0))
            most = change.max(initial=0)
            own = np.nan_to_num(np.abs(p - y), nan=0, posinf=0)
            results.append(Expected(p, y, 2e-6 * np.abs(y) + 4 * own + 16 * change + 2 * most + SMALLEST))
    return results


def difference(found: np.ndarray, wanted: Expected) -> str:
    """What is wrong with a result; empty if nothing is."""
    p, y = wanted.single, wanted.double
    if found.shape != p.shape:
        return f"shape {found.shape} instead of {p.shape}"
    found = found.astype("float64")
    with np.errstate(all="ignore"):
        y = np.where(np.abs(y) > GREATEST, np.sign(y) * np.inf, y)
        centre = np.where(np.isfinite(y), y, p)
        tolerance = np.where(np.isfinite(wanted.tolerance), wanted.tolerance, 2e-6 * np.abs(centre))
        near = np.isfinite(found) & (np.abs(found - centre) <= tolerance)
        right = near & (np.isfinite(p) | np.isfinite(y))
        for value in (p, y):
            right |= (np.isnan(value) & np.isnan(found)) | (np.isinf(value) & (value == found))
    if right.all():
        return ""
    at = tuple(int(i) for i in np.argwhere(~right)[0])
    return (
        f"{int((~right).sum())} of {right.size} elements; at {list(at)} {found[at]:.9g} instead of {p[at]:.9g}"
        f" (float64 {y[at]:.9g}, tolerance {wanted.tolerance[at]:.2g})"
    )


def _arrays(tensors: Sequence[torch.Tensor]) -> list[Any]:
    # As cells return them: integers and booleans as float32.
    kept = [tensor if tensor.is_floating_point() else tensor.to(torch.float32) for tensor in tensors]
    return [tensor.detach().double().numpy() for tensor in kept]


def _moved(inputs: Sequence[torch.Tensor], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    moved = []
    for tensor in inputs:
        if tensor.dtype == torch.float32:
            sign = torch.randint(0, 2, tensor.shape, generator=generator, dtype=torch.float64) * 2 - 1
            tensor = tensor.double() * (1 + EPSILON * sign)
        moved.append(tensor)
    return moved
