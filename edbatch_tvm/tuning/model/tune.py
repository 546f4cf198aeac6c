"""``edbatch_tvm.tune``: find out what is slow, search faster schedules for it, keep what is verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

from tvm import IRModule
from tvm.target import Target

from edbatch_tvm.backends import find_backend
from edbatch_tvm.backends.cpu import CpuBackend
from edbatch_tvm.backends.cpu_records import NO_RECORDS
from edbatch_tvm.batching.api import PolicyLike
from edbatch_tvm.checking.reference import Function
from edbatch_tvm.compiler import compile_model
from edbatch_tvm.errors import DataError, EdbatchError, EnvironmentMismatch, TargetError
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.runtime.threads import get_num_threads
from edbatch_tvm.tuning.kernels.database import TuningDatabase
from edbatch_tvm.tuning.kernels.general_cell_records import SIZES
from edbatch_tvm.tuning.kernels.general_cell_search import tune_tiles
from edbatch_tvm.tuning.kernels.record_keys import stage_key
from edbatch_tvm.tuning.kernels.remote_timer import RemoteTimer, Tracker
from edbatch_tvm.tuning.kernels.search_result import Load, Outcome, Progress
from edbatch_tvm.tuning.kernels.stage_search import tune_stage
from edbatch_tvm.tuning.kernels.timing import LocalTimer, Timer
from edbatch_tvm.tuning.kernels.timing_worker import WorkerTimer
from edbatch_tvm.tuning.model.histogram import allot, batch_sizes, loads_of, shares
from edbatch_tvm.tuning.model.tunable_kernels import Subjects, find_subjects
from edbatch_tvm.tuning.model.verify import Verification, verify
from schedules.cpu.machine import machine_of
from schedules.device_names import SHIPPED

TRIALS = 256
"""Trials of a run where no number is given."""

LEAST_TRIALS = 8
"""Trials of a bucket that matters, at least."""


@dataclass(frozen=True, eq=False)
class TuneReport:
    """What a tuning run found.

    Attributes
    ----------
    device : str
    database : str
        The folder of the device's records.
    kernels : list of Outcome
    trials, failed : int
        Made in this run, and those of them that could not be built or run.
    known : int
        Trials that the database had before.
    untunable : dict
        For cells that cannot be tuned, why.
    verification : Verification or None
        None where the tuned build cannot be run: another machine's target.
    seconds : float
    """

    device: str
    database: str
    kernels: list[Outcome]
    trials: int
    failed: int
    known: int
    untunable: dict[str, str]
    verification: Verification | None
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The report as nested dicts of plain values."""
        kernels = [
            {
                "name": outcome.name,
                "kind": outcome.kind,
                "buckets": [
                    {
                        "batch": str(gain.load),
                        "count": gain.load.count,
                        "batches": gain.load.batches,
                        "default_seconds": gain.default_seconds,
                        "tuned_seconds": gain.tuned_seconds,
                        "gain": gain.gain,
                        "choice": gain.choice,
                    }
                    for gain in outcome.gains
                ],
            }
            for outcome in self.kernels
        ]
        checked = None
        if self.verification is not None:
            checked = {**asdict(self.verification), "gain": self.verification.gain, "kept": self.verification.good}
        return {
            "device": self.device,
            "database": self.database,
            "trials": self.trials,
            "failed": self.failed,
            "known": self.known,
            "seconds": self.seconds,
            "kernels": kernels,
            "untunable": self.untunable,
            "verification": checked,
        }

    def rows(self) -> list[tuple[str, str]]:
        """The figures for a reader."""
        rows = [
            ("device", f"{self.device}, records in {self.database}"),
            ("trials", f"{self.trials} in {self.seconds:.0f} s, {self.failed} failed; {self.known} known before"),
        ]
        for outcome in self.kernels:
            for gain in outcome.gains:
                times = f"{1e6 * gain.default_seconds:8.1f} -> {1e6 * gain.tuned_seconds:8.1f} µs"
                rows.append((f"{outcome.name} {gain.load}", f"{gain.gain:5.2f} x  {times}  {gain.choice}"))
        rows += [(name, f"not tuned: {reason}") for name, reason in self.untunable.items()]
        checked = self.verification
        if checked is None:
            rows.append(("verified", "no: the tuned build is for another machine"))
            return rows
        found = any(gain.choice != "default" for outcome in self.kernels for gain in outcome.gains)
        verdict = "nothing to keep" if not found else "kept" if checked.good else "slower: dropped"
        rows.append(
            (
                "verified",
                f"{1e3 * checked.default_seconds:.2f} -> {1e3 * checked.tuned_seconds:.2f} ms on fresh data, "
                f"{verdict}; "
                f"relative error {checked.max_relative_error:.1e} against the {checked.against}",
            )
        )
        return rows


@dataclass(frozen=True, eq=False)
class _Run:
    """One tuning run: everything the parts of it share."""

    subjects: Subjects
    database: TuningDatabase
    timer: Timer
    target: Target
    threads: int
    seed: int
    progress: Progress
    outcomes: list[Outcome] = field(default_factory=list)


def tune(
    mod: IRModule,
    params: Mapping[str, Any],
    minibatches: Sequence[Sequence[InstanceGraph]],
    target: str | Mapping[str, Any] | Target = "llvm",
    trials: int = TRIALS,
    database: str | Path | None = None,
    policy: PolicyLike = "auto",
    fresh: Sequence[Sequence[InstanceGraph]] | None = None,
    reference: Mapping[str, Function] | None = None,
    tracker: Tracker | None = None,
    isolate: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> TuneReport:
    """Tune the kernels of a model for a device.

    Parameters
    ----------
    mod : IRModule
        Cells, as for :func:`edbatch_tvm.compile`.
    params : mapping of str to array
        The weights.
    minibatches : sequence of sequence of InstanceGraph
        Real data: kernels are tuned for the batch sizes that occur in its schedules.
    target : str, mapping or tvm.target.Target
        The device, as for :func:`edbatch_tvm.compile`.
    trials : int
        Approximate number of candidates in total, including those of earlier runs: a second run tries none.
    database : str or path, optional
        Folder of databases, made if it is missing; the one inside the package by default.
    policy : str, path, Policy or callable
        How schedules are made.
    fresh : sequence of sequence of InstanceGraph, optional
        Minibatches to verify the tuned build on; without them the last of `minibatches` is held back for it.
    reference : mapping of str to callable, optional
        The cells in NumPy, to verify against; without it, results are compared with the default build.
    tracker : Tracker, optional
        The tracker of the devices that measure; without it, this machine measures.
    isolate : bool
        Measure in a worker process, so that a crashing candidate does not end this one.
    seed : int
        Of the searches.
    progress : callable, optional
        Called after every trial with what is tuned, and the time over the default's (None if the trial failed).

    Returns
    -------
    TuneReport

    Raises
    ------
    DatabaseError
        If the database cannot be made or read.
    DataError
        If there is no data to tune on.
    TargetError
        If the target or the tracker's device is not available.
    EnvironmentMismatch
        If a package that MetaSchedule needs is not installed.
    EdbatchError
        If the tuned build gives wrong results; nothing is kept then.
    """
    begin = perf_counter()
    data = [list(instances) for instances in minibatches]
    if fresh is None:
        data, fresh = (data[:-1], data[-1:]) if len(data) > 1 else (data, data)
    if not data:
        raise DataError("no minibatches to tune on", "1 or more")
    backend = find_backend(target)
    if not isinstance(backend, CpuBackend):
        raise TargetError(f"tuning for target {target!r}", "an llvm target")
    resolved = backend.target
    default = compile_model(mod, params, target=resolved, policy=policy, database=NO_RECORDS)
    sizes = batch_sizes(default.schedule(default.merge(instances))[0] for instances in data)
    timer, threads = _timer(resolved, tracker, isolate)
    try:
        folder = TuningDatabase(SHIPPED if database is None else database, resolved, threads, create=True)
        known = folder.trials_count()
        subjects = find_subjects(mod, machine_of(resolved))
        run = _Run(subjects, folder, timer, resolved, threads, seed, progress or (lambda *_: None))
        loads = {name: loads_of(sizes[cell]) for name, cell in subjects.cell_of.items() if cell in sizes}
        _search(run, loads, trials)
    finally:
        timer.close()
    checked = None
    if tracker is None:
        tuned = compile_model(mod, params, target=resolved, policy=policy, database=folder.path.parent)
        checked = verify(default, tuned, fresh, params, reference)
        if not checked.good:
            _drop(run)
        if not checked.right:
            raise EdbatchError(
                f"tuned kernels are off by {checked.max_relative_error:.3g}, "
                f"those by default by {checked.default_relative_error:.3g}",
                "results of the reference",
                "report this",
            )
    return TuneReport(
        folder.device,
        str(folder.path),
        run.outcomes,
        sum(outcome.trials for outcome in run.outcomes),
        sum(outcome.failed for outcome in run.outcomes),
        known,
        subjects.untunable,
        checked,
        perf_counter() - begin,
    )


def _timer(target: Target, tracker: Tracker | None, isolate: bool) -> tuple[Timer, int]:
    """What measures, and its number of threads."""
    if tracker is not None:
        remote = RemoteTimer(target, tracker)
        return remote, remote.threads
    return (WorkerTimer(dict(target.export())) if isolate else LocalTimer(target)), get_num_threads()


def _search(run: _Run, loads: Mapping[str, list[Load]], trials: int) -> None:
    """Tune what matters, the costliest first."""
    share = shares(loads, run.subjects.multiply_adds)
    trials_of = allot(trials, share, LEAST_TRIALS)
    if find_spec("psutil") is None and any(name in run.subjects.tiles for name, _ in trials_of):
        raise EnvironmentMismatch("psutil is missing", "what MetaSchedule needs", "pip install edbatch-tvm[tune]")
    cost: dict[str, float] = {}
    for name, load in trials_of:
        cost[name] = cost.get(name, 0.0) + share[name, load]
    for name in sorted(cost, key=lambda name: -cost[name]):
        wanted = [(load, trials_of[name, load]) for load in loads[name] if (name, load) in trials_of]
        if name in run.subjects.stages:
            outcome = tune_stage(run.subjects.stages[name], wanted, run.database, run.timer, run.seed, run.progress)
        else:
            outcome = tune_tiles(
                run.subjects.tiles[name],
                [load for load, _ in wanted],
                sum(number for _, number in wanted),
                run.database,
                run.timer,
                run.target,
                run.threads,
                run.seed,
                run.progress,
            )
        run.outcomes.append(outcome)


def _drop(run: _Run) -> None:
    """Forget what this run would keep."""
    changed = {outcome.name for outcome in run.outcomes if any(gain.choice != "default" for gain in outcome.gains)}
    stages = [run.subjects.stages[name] for name in changed if name in run.subjects.stages]
    tiles = [run.subjects.tiles[name] for name in changed if name in run.subjects.tiles]
    modules = [stage_key(one.stage, one.machine) for one in stages]
    modules += [one.module(size) for one in tiles for size in SIZES]
    run.database.keep((module, None, 0.0) for module in modules)
