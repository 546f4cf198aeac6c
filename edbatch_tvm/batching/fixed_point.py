"""Fixed-point numbers: learned values are integers, so that every machine and both backends learn the same table."""

from __future__ import annotations

UNIT_BITS = 20
UNIT = 1 << UNIT_BITS
"""One batch, as a value."""

RATE_BITS = 16
"""Learning rates are multiples of 2**-16."""


def to_fixed(number: float, bits: int = UNIT_BITS) -> int:
    """`number` as a multiple of ``2**-bits``."""
    return round(number * (1 << bits))
