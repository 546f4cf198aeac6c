"""A small random generator that the native learner and its Python reference both run, to the same bits."""

from __future__ import annotations

MASK = (1 << 64) - 1
INCREMENT = 0x1E3779B97F4A7C15
FIRST_SHIFT, FIRST_FACTOR = 30, 0x3F58476D1CE4E5B9
SECOND_SHIFT, SECOND_FACTOR = 27, 0x14D049BB133111EB
LAST_SHIFT = 31


class SplitMix:
    """SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) with factors below 2**63, which TVMScript can write.

    Parameters
    ----------
    seed : int
        Equal seeds give equal sequences.
    """

    def __init__(self, seed: int) -> None:
        self._state = (seed * 2 + 1) & MASK

    @classmethod
    def resume(cls, state: int) -> SplitMix:
        """The generator that :attr:`signed_state` was read from."""
        random = cls(0)
        random._state = state & MASK
        return random

    @property
    def signed_state(self) -> int:
        """The state as a signed 64-bit number."""
        return self._state - (1 << 64) if self._state >> 63 else self._state

    def draw(self) -> int:
        """64 random bits."""
        self._state = mixed = (self._state + INCREMENT) & MASK
        mixed = ((mixed ^ (mixed >> FIRST_SHIFT)) * FIRST_FACTOR) & MASK
        mixed = ((mixed ^ (mixed >> SECOND_SHIFT)) * SECOND_FACTOR) & MASK
        return mixed ^ (mixed >> LAST_SHIFT)
