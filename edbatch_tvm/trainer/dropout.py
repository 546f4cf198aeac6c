"""Dropout: rows of numbers that are dropped or scaled, drawn for each instance and epoch by a counter-based generator.

A mask is an attribute of a node, so that forward pass, backward pass and the reference read the same one. It depends on
the seed, the epoch, the instance, the place of the node in it and the column, and on nothing else: minibatches of
another size or order, another policy and another number of threads draw the same masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import relax
from tvm.relax import op as R

from edbatch_tvm.graph import CellSignature
from edbatch_tvm.losses import cell_of
from edbatch_tvm.tvm_compat import TensorType

DROP = "drop"
"""Name of the cell."""

MASK = "mask"
"""Name of its attribute."""


def drop_cell(read_by: CellSignature) -> relax.Function:
    """A cell ``drop(h, mask)``, the product of both, for what a cell reads: all its operands are of one shape."""
    (spec,) = {operand.spec for operand in read_by.operands}
    h, mask = (relax.Var(name, TensorType(spec.shape, spec.dtype)) for name in ("h", MASK))
    return cell_of([h, mask], lambda: R.multiply(h, mask), [MASK])


class Masks:
    """Draws masks.

    Parameters
    ----------
    p : float
        The probability that a number is dropped, from 0 to below 1. Others are scaled by ``1 / (1 - p)``.
    seed : int
    size : int
        Numbers of a row.
    """

    def __init__(self, p: float, seed: int, size: int) -> None:
        self.p = p
        self.size = size
        self._bits = np.random.Philox(key=seed)
        self._start = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def rows(self, epoch: int, instances: Sequence[int], counts: Sequence[int]) -> np.ndarray:
        """The masks of a minibatch.

        Parameters
        ----------
        epoch : int
        instances : sequence of int
            The number of each instance among all.
        counts : sequence of int
            How many rows each has.

        Returns
        -------
        float32 array of shape ``[sum(counts), size]``
        """
        drawn = np.empty((sum(counts), self.size), np.float32)
        begin = 0
        for instance, count in zip(instances, counts, strict=True):
            # Where the counter of an instance ends is far from where that of the next begins.
            self._start["state"]["counter"][:] = 0, 0, instance, epoch
            self._bits.state = self._start
            self._generator.random(out=drawn[begin : begin + count], dtype=np.float32)
            begin += count
        return np.where(drawn < self.p, np.float32(0), np.float32(1 / (1 - self.p)))
