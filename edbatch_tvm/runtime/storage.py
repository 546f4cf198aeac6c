"""Values and weights of float32 in 16 bits: how arrays of them are held, and given out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relay_ext.narrow_storage import held_dtype as _integers_or_halves


@dataclass(frozen=True)
class Stored:
    """What a model keeps values of float32 in, and the bytes of its weights as kernels read them."""

    dtype: str
    weight_bytes: int


def held_dtype(dtype: str, storage: str) -> str:
    """The dtype of an array that holds numbers of `dtype`, where those of float32 are stored as `storage`."""
    return dtype if dtype != "float32" or storage == "float32" else _integers_or_halves(storage)


def held(array: np.ndarray, storage: str) -> np.ndarray:
    """`array` as it is held: numbers of float32 rounded to the nearest of `storage`, of two to the even one.

    >>> held(np.array([1.0, 1.00390625, 3e38, np.nan], np.float32), "bfloat16")
    array([16256, 16256, 32610, 32704], dtype=uint16)
    """
    if storage == "float32" or array.dtype != np.float32:
        return array
    if storage == "float16":
        with np.errstate(over="ignore"):
            return array.astype(np.float16)
    bits = np.ascontiguousarray(array).view(np.uint32)
    upper = bits >> 16
    nearest = (bits + np.uint32(0x7FFF) + (upper & 1)) >> 16
    return np.where(np.isnan(array), upper | 0x40, nearest).astype(np.uint16)


def given(array: np.ndarray, dtype: str, storage: str) -> np.ndarray:
    """What :func:`held` holds for an array of `dtype`, as one of that dtype.

    >>> given(held(np.array([0.1], np.float32), "bfloat16"), "float32", "bfloat16")
    array([0.10009766], dtype=float32)
    """
    if dtype != "float32" or storage == "float32":
        return array
    if storage == "float16":
        return array.astype(np.float32)
    return (array.astype(np.uint32) << 16).view(np.float32)
