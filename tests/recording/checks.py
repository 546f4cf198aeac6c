"""Comparing results with PyTorch's."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree


def assert_equal(found: Any, wanted: Any) -> None:
    """Equal in structure, and in numbers to 1e-5 of the largest finite value; NaN and infinities are the same."""
    leaves, structure = pytree.tree_flatten(found)
    expected, expected_structure = pytree.tree_flatten(wanted)
    assert structure == expected_structure
    for one, other in zip(leaves, expected, strict=True):
        if isinstance(other, torch.Tensor):
            assert type(one) is torch.Tensor
            assert one.shape == other.shape
            assert one.dtype == other.dtype
            same = (one == other) | (one.isnan() & other.isnan())
            largest = other[other.isfinite()].abs().max() if other.isfinite().any() else 0
            assert same.all() or (one - other)[~same].abs().max() <= 1e-5 * largest
        else:
            assert one == other
