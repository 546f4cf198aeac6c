"""What a search is given and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

FINAL_ROUNDS = 15
"""Rounds of the comparisons that decide what is kept."""

MARGIN = 0.05
"""A kernel is kept where both the least and the median of its times are less by this share: more than noise."""

Progress = Callable[[str, float | None], None]
"""Called after each trial with what is tuned and the trial's time over the default's; None if it failed."""


@dataclass(frozen=True)
class Load:
    """Batch sizes that are taken together.

    Attributes
    ----------
    first, last : int
        The smallest and the largest batch size of the bucket; the last bucket has none (0).
    count : int
        The size that represents the bucket: half of its nodes are in batches of at most this size.
    batches, nodes : int
        Of the minibatches that were counted.
    """

    first: int
    last: int
    count: int
    batches: int
    nodes: int

    def __str__(self) -> str:
        if self.first == self.last:
            return str(self.first)
        return f"{self.first}-{self.last}" if self.last else f"{self.first}+"


@dataclass(frozen=True)
class BucketGain:
    """A kernel on one bucket of batch sizes: seconds of a call by default and tuned, timed side by side."""

    load: Load
    default_seconds: float
    tuned_seconds: float
    choice: str

    @property
    def gain(self) -> float:
        """Default time over tuned time; 1 where the default stays."""
        return self.default_seconds / self.tuned_seconds


@dataclass(frozen=True)
class Outcome:
    """What tuning found for one kernel.

    Attributes
    ----------
    name : str
    kind : {"tiles", "stage"}
    gains : tuple of BucketGain
    trials : int
        Made in this run.
    failed : int
        Of these, candidates that could not be built or run.
    """

    name: str
    kind: str
    gains: tuple[BucketGain, ...]
    trials: int = 0
    failed: int = 0


def ratio(times: Sequence[float], base: Sequence[float]) -> float:
    """The least of `times` over the least of `base`."""
    return min(times) / min(base)


def faster(times: Sequence[float], base: Sequence[float]) -> bool:
    """Whether `times` are less than `base` by more than noise, both timed in the same rounds.

    The larger the spread of the times themselves, the larger the difference has to be.
    """
    spread = max((median(one) - min(one)) / median(one) for one in (times, base))
    return max(ratio(times, base), median(times) / median(base)) < 1 - max(MARGIN, spread)
