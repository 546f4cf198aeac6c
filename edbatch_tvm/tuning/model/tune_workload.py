"""Tuning of a workload: its cells, on the batch sizes of its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edbatch_tvm.models import get_workload
from edbatch_tvm.models.data import load_minibatches
from edbatch_tvm.tuning.kernels.remote_timer import Tracker
from edbatch_tvm.tuning.kernels.search_result import Progress
from edbatch_tvm.tuning.model.tune import TRIALS
from edbatch_tvm.tuning.model.tune_for_target import Report, TuneJob
from relay_ext.signature import signature_of

FRESH_SEED = 1 << 21
"""What is added to the seed to generate the instances that the tuned build is verified on."""

FRESH_MINIBATCHES = 2


@dataclass(frozen=True)
class TuneOptions:
    """What to tune; the fields are the options of ``edbatch tune``."""

    workload: str
    data: Path | None = None
    hidden: int = 128
    batch_size: int = 64
    minibatches: int | None = None
    policy: str = "auto"
    target: str = "llvm"
    trials: int = TRIALS
    database: Path | None = None
    tracker: str | None = None
    rpc_key: str = ""
    seed: int = 0


def tune_workload(options: TuneOptions, progress: Progress | None = None) -> Report:
    """Tune a workload as `options` say and verify it on fresh instances, which are always generated.

    Raises
    ------
    EdbatchError
        If the options, the data or the environment do not allow it, or the tuned build is wrong.
    """
    tracker = None if options.tracker is None else Tracker.parse(options.tracker, options.rpc_key)
    workload = get_workload(options.workload)
    mod = workload.cells(options.hidden)
    signature = signature_of(mod)
    size, seed = options.batch_size, options.seed
    minibatches = load_minibatches(workload, signature, options.data, size, options.minibatches, seed)
    fresh = load_minibatches(workload, signature, None, size, FRESH_MINIBATCHES, seed + FRESH_SEED)
    return TuneJob(
        mod,
        workload.weights(options.hidden, seed),
        minibatches,
        fresh,
        workload.reference,
        options.target,
        options.trials,
        options.database,
        options.policy,
        tracker,
        seed,
        progress,
    ).run()
