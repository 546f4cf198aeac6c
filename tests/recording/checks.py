"""Comparing results with PyTorch's."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree


def assert_equal(found: Any, wanted: Any) -> None:
    """Equal in structure, and in numbers to 1e-5 of the largest value."""
    leaves, structure = pytree.tree_flatten(found)
    expected, expected_structure = pytree.tree_flatten(wanted)
    assert structure == expected_structure
    for one, other in zip(leaves, expected, strict=True):
        if isinstance(other, torch.Tensor):
            assert type(one) is torch.Tensor
            assert one.shape == other.shape
            assert one.dtype == other.dtype
            assert not other.numel() or (one - other).abs().max() <= 1e-5 * other.abs().max()
        else:
            assert one == other
