"""NumPy arrays as the native kernels take them."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_argument(array: np.ndarray, dtype: type[np.signedinteger[Any]] = np.int32) -> np.ndarray:
    """`array` as kernels read it; a copy if it has other integers, gaps, or is read-only (TVM refuses that)."""
    if array.dtype == dtype and array.flags.carray:
        return array
    result = np.ascontiguousarray(array, dtype)
    return result if result.flags.writeable else result.copy()


def never_empty(array: np.ndarray) -> np.ndarray:
    """The same, with one -1 in place of nothing: TVM refuses the null pointer that an empty array may have."""
    return as_argument(array) if len(array) else np.full(1, -1, np.int32)
