"""Element-wise PyTorch operators that TVM's importer does not know, by ones that it does; ties and gradients alike."""

from __future__ import annotations

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
    }


def _fmax(x: Any, y: Any) -> Any:
    """The greater of two, or the other of a NaN; the gradient of equal ones is the first's, as in PyTorch."""
    import torch

    return torch.where((x >= y) | (y != y), x, y)


def _fmin(x: Any, y: Any) -> Any:
    import torch

    return torch.where((x <= y) | (y != y), x, y)


def _exp2(x: Any) -> Any:
    import torch

    return torch.pow(2.0, x)


def _ldexp(x: Any, exponent: Any) -> Any:
    import torch

    return x * torch.pow(2.0, exponent)
