"""Which tuner a target has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tvm import IRModule

from edbatch_tvm.backends import TargetLike, find_backend
from edbatch_tvm.batching.api import PolicyLike
from edbatch_tvm.checking.reference import Function
from edbatch_tvm.errors import TargetError
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.tuning.kernels.remote_timer import Tracker
from edbatch_tvm.tuning.kernels.search_result import Progress
from edbatch_tvm.tuning.model.tune import TRIALS, tune
from edbatch_tvm.tuning.model.tune_gpu import tune_gpu


class Report(Protocol):
    """What a tuner found."""

    def as_json(self) -> dict[str, Any]:
        """The report as nested dicts of plain values."""

    def rows(self) -> list[tuple[str, str]]:
        """The figures for a reader."""


@dataclass(frozen=True, eq=False)
class TuneJob:
    """What to tune; see :func:`edbatch_tvm.tune`."""

    mod: IRModule
    weights: Mapping[str, np.ndarray]
    minibatches: Sequence[Sequence[InstanceGraph]]
    fresh: Sequence[Sequence[InstanceGraph]]
    reference: Mapping[str, Function]
    target: TargetLike = "llvm"
    trials: int = TRIALS
    database: str | Path | None = None
    policy: PolicyLike = "auto"
    tracker: Tracker | None = None
    seed: int = 0
    progress: Progress | None = None

    def run(self) -> Report:
        """Tune for the target.

        Raises
        ------
        TargetError
            If it cannot be tuned, or is not available here.
        """
        tuner = _TUNERS.get(find_backend(self.target).name)
        if tuner is None:
            raise TargetError(f"tuning for target {self.target!r}", f"one of {', '.join(_TUNERS)}")
        return tuner(self)


def _tune_kernels(job: TuneJob) -> Report:
    return tune(
        job.mod,
        job.weights,
        job.minibatches,
        target=job.target,
        trials=job.trials,
        database=job.database,
        policy=job.policy,
        fresh=job.fresh,
        reference=job.reference,
        tracker=job.tracker,
        seed=job.seed,
        progress=job.progress,
    )


def _tune_settings(job: TuneJob) -> Report:
    return tune_gpu(
        job.mod,
        job.weights,
        job.minibatches,
        job.fresh,
        job.reference,
        job.target,
        job.trials,
        job.database,
        job.policy,
    )


_TUNERS: dict[str, Callable[[TuneJob], Report]] = {
    "cpu": _tune_kernels,
    "cuda": _tune_settings,
    "cuda-emulated": _tune_settings,
}
"""Tuners by the name of the backend."""
