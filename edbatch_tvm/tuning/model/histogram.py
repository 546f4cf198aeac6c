"""The batch sizes of real minibatches: which ones a kernel should be tuned for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from edbatch_tvm.batching import Schedule
from edbatch_tvm.tuning.kernels.search_result import Load

STARTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Where the buckets of batch sizes begin; the last has no end."""

BATCH_COST = 200_000
"""What a batch costs beside its nodes, in multiply-adds: about the time of a call and a wake-up of the threads."""

LEAST_SHARE = 0.02
"""A bucket with less than this share of the estimated time is left as it is."""


def batch_sizes(schedules: Iterable[Schedule]) -> dict[str, np.ndarray]:
    """Sizes of the batches of each cell that runs.

    Returns
    -------
    dict from cell to int array
        One entry a batch.
    """
    sizes: dict[str, list[np.ndarray]] = {}
    for schedule in schedules:
        counts = np.diff(schedule.batch_ptr)
        for kind in np.unique(schedule.batch_type).tolist():
            sizes.setdefault(schedule.type_names[kind], []).append(counts[schedule.batch_type == kind])
    return {name: np.concatenate(parts) for name, parts in sizes.items()}


def loads_of(sizes: np.ndarray) -> list[Load]:
    """The buckets of batch sizes that occur.

    Examples
    --------
    >>> [str(load) for load in loads_of(np.array([1, 1, 2, 3, 3, 300]))]
    ['1', '2-3', '256+']
    """
    loads = []
    for number, first in enumerate(STARTS):
        end = STARTS[number + 1] if number + 1 < len(STARTS) else None
        inside = np.sort(sizes[(sizes >= first) & (sizes < (end or np.inf))])
        if not len(inside):
            continue
        middle = np.searchsorted(np.cumsum(inside), inside.sum() / 2)
        last = end - 1 if end is not None else 0
        loads.append(Load(first, last, int(inside[middle]), len(inside), int(inside.sum())))
    return loads


def shares(loads: Mapping[str, list[Load]], multiply_adds: Mapping[str, int]) -> dict[tuple[str, Load], float]:
    """The share of each kernel and bucket in the estimated time of them all.

    Parameters
    ----------
    loads : mapping of kernel to loads
    multiply_adds : mapping of kernel to int
        Of one instance.
    """
    cost = {
        (name, load): load.batches * BATCH_COST + load.nodes * multiply_adds[name]
        for name, ones in loads.items()
        for load in ones
    }
    total = sum(cost.values())
    return {key: value / total for key, value in cost.items()}


def allot(trials: int, share: Mapping[tuple[str, Load], float], least: int) -> dict[tuple[str, Load], int]:
    """Trials of each kernel and bucket: in proportion to their shares, `least` or more for those that matter.

    The sum can exceed `trials` where many buckets matter.
    """
    kept = {key: value for key, value in share.items() if value >= LEAST_SHARE}
    total = sum(kept.values())
    return {key: max(least, int(trials * value / total)) for key, value in kept.items()}
