"""What a batch costs, as whole numbers that the search adds up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNLIMITED = int(np.iinfo(np.int64).max) // 4
"""A cost that no schedule has."""


@dataclass(frozen=True, eq=False)
class IntegerCosts:
    """Cost of batches by type and size.

    Attributes
    ----------
    by_size : int64 array of shape [types, sizes]
        Of a batch of each type and number of nodes; the last column is for all larger batches.
    least : int64 array of shape [types]
        No batch of the type costs less.
    """

    by_size: np.ndarray
    least: np.ndarray

    @classmethod
    def unit(cls, num_types: int) -> IntegerCosts:
        """Every batch costs 1: what is counted is batches."""
        return cls(np.ones((num_types, 2), np.int64), np.ones(num_types, np.int64))

    def of(self, type_id: int, size: int) -> int:
        """Cost of one batch."""
        return int(self.by_size[type_id, min(size, self.by_size.shape[1] - 1)])
