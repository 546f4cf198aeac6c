"""Element-wise PyTorch operators that TVM's importer does not know, by ones that it does; ties and gradients alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


def elementwise_decompositions() -> dict[Any, Any]:
    """Decompositions by operator, for ``ExportedProgram.run_decompositions``."""
    import torch

    aten = torch.ops.aten
    return {
        aten.fmax.default: _fmax,
        aten.fmin.default: _fmin,
        aten.exp2.default: _exp2,
        aten.ldexp.Tensor: _ldexp,
        aten.softplus.default: _softplus,
        aten.celu.default: _celu,
        aten.logaddexp.default: _logaddexp,
        aten.logaddexp2.default: _logaddexp2,
        aten.copysign.Tensor: _copysign,
        aten.copysign.Scalar: _copysign,
        aten.hypot.default: _hypot,
    }


def _fmax(x: Any, y: Any) -> Any:
    """The greater of two, or the other of a NaN; the gradient of equal ones is the first's, as in PyTorch."""
    import torch

    return torch.where(torch.logical_or(x >= y, y != y), x, y)


def _fmin(x: Any, y: Any) -> Any:
    import torch

    return torch.where(torch.logical_or(x <= y, y != y), x, y)


def _exp2(x: Any) -> Any:
    import torch

    return torch.pow(2.0, x)


def _ldexp(x: Any, exponent: Any) -> Any:
    import torch

    return x * torch.pow(2.0, exponent)


def _softplus(x: Any, beta: float = 1, threshold: float = 20) -> Any:
    """Beyond the threshold it is x; ``exp`` would be infinite there, and the gradient of what is not chosen NaN."""
    import torch

    is_linear = x * beta > threshold
    below = torch.where(is_linear, 0.0, x * beta)
    return torch.where(is_linear, x, torch.log1p(torch.exp(below)) / beta)


def _celu(x: Any, alpha: float = 1) -> Any:
    import torch

    is_negative = x <= 0
    below = torch.where(is_negative, x / alpha, 0.0)
    return torch.where(is_negative, torch.expm1(below) * alpha, x)


def _logaddexp(x: Any, y: Any) -> Any:
    """The greater plus what the difference adds: of an infinity the gradient is that of the greater, as in PyTorch."""
    import torch

    return _of_difference(x, y, lambda difference: torch.log1p(torch.exp(difference)))


def _logaddexp2(x: Any, y: Any) -> Any:
    import torch

    return _of_difference(x, y, lambda difference: torch.log1p(_exp2(difference)) / math.log(2.0))


def _of_difference(x: Any, y: Any, added: Callable[[Any], Any]) -> Any:
    import torch

    is_first = x >= y
    greater, other = torch.where(is_first, x, y), torch.where(is_first, y, x)
    same = torch.logical_and(x == y, x.abs() == torch.inf)  # the gradient is NaN: that of inf - inf
    return torch.where(same, x, greater + added(other - greater))


def _copysign(x: Any, y: Any) -> Any:
    """The size of one with the sign of the other; a NaN counts as positive.

    PyTorch's gradient is NaN where x is infinite: so is that of ``1 / (1 / x)``, which is x there.
    """
    import torch

    finite = x.abs() < torch.inf
    x = torch.where(finite, x, 1 / (1 / torch.where(finite, 1.0, x)))
    if not isinstance(y, torch.Tensor):
        return -x.abs() if math.copysign(1.0, y) < 0 else x.abs()
    is_negative = torch.logical_or(y < 0, torch.logical_and(y == 0, 1 / y < 0))
    made = torch.where(is_negative, -x.abs(), x.abs())
    return torch.where(y > torch.inf, y, made)  # never; but y has a gradient, which is 0


def _hypot(x: Any, y: Any) -> Any:
    """The root of the sum of squares; numbers whose squares are too large or too small are scaled by a power of two.

    An infinity counts more than a NaN. Gradients pass the root alone, so that they are x / hypot(x, y), as in PyTorch:
    0 where that is too large.
    """
    import torch

    high, low, down, up = (500, -400, -600, 600) if x.dtype is torch.float64 else (60, -60, -70, 76)
    small = torch.logical_and(x.abs() < 2.0**low, y.abs() < 2.0**low)
    large = torch.logical_or(x.abs() > 2.0**high, y.abs() > 2.0**high)
    scale = torch.where(large, 2.0**down, torch.where(small, 2.0**up, torch.ones_like(x)))
    a, b = x * scale, y * scale
    root = torch.sqrt(a * a + b * b) / scale
    infinite = torch.logical_or(x.abs() == torch.inf, y.abs() == torch.inf)
    return torch.where(torch.logical_or(infinite, root == torch.inf), torch.inf, root)
