"""Serial numbers of the instances that builders make: a value carries that of its instance, so that no other takes it.

Every builder takes the numbers of its instances from a block of its own. That says whose a value is, for as long as
the builder lives.
"""

from __future__ import annotations

import itertools
import weakref

import numpy as np

from edbatch_tvm.graph.instance import ZERO
from edbatch_tvm.graph.spec import Signature

LOCAL_BITS = 32
"""Low bits of a value: ``node * stride + slot``. The serial number, above them, is large: no number that is typed."""

ZERO_VALUE = (1 << LOCAL_BITS) + (ZERO & ((1 << LOCAL_BITS) - 1))
"""The zero state as builders give it out, of a serial number of its own: -1 is a number that people type."""

_BLOCK = 64
_FIRST, _BLOCKS = 1 << 16, 1 << 24
_NEXT = itertools.count()


class Serials:
    """The serial numbers of one builder.

    Parameters
    ----------
    signature : Signature
        The cells of the builder.
    """

    __slots__ = ("__weakref__", "_left", "_signature")

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._left = iter(range(0))

    def take(self) -> int:
        """The next number."""
        for serial in self._left:
            return serial
        # Blocks come again after 16 million; nobody has kept a value for so long.
        block = _FIRST + next(_NEXT) % _BLOCKS
        _OWNERS[block] = self
        self._left = iter(range(block * _BLOCK, (block + 1) * _BLOCK))
        return next(self._left)

    def describe(self, value: int) -> str | None:
        """What `value`, which is not of the current instance, is; None if no builder made it."""
        block = (value >> LOCAL_BITS) // _BLOCK
        if not _FIRST <= block < _FIRST + _BLOCKS:
            return None
        node, slot = divmod(value & ((1 << LOCAL_BITS) - 1), self._signature.stride)
        owner = _OWNERS.get(block)
        if owner is self:
            return f"a value of an earlier instance of this builder (output {slot} of its node {node})"
        if owner is None:
            return "a value of another builder, which is gone"
        return f"a value of another builder, of the cells {', '.join(owner._signature.names)}"


_OWNERS: weakref.WeakValueDictionary[int, Serials] = weakref.WeakValueDictionary()
"""By block; those of builders that are gone are not in it."""


def local_of(values: np.ndarray) -> np.ndarray:
    """Values as ``node * stride + slot``, int32; the zero state is :data:`ZERO`, negative ones stay."""
    return values.astype(np.int32)
