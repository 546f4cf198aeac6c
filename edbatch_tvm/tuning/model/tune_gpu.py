"""Tuning for a GPU: the settings that decide which tiles batches get and how many blocks stay on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from tvm import IRModule

from edbatch_tvm.backends import find_backend
from edbatch_tvm.backends.cpu_records import NO_RECORDS
from edbatch_tvm.batching.api import PolicyLike
from edbatch_tvm.checking.comparison import TOLERANCE, compare
from edbatch_tvm.checking.reference import Function, run_reference
from edbatch_tvm.compiler.compile import compile_model
from edbatch_tvm.errors import DataError, EdbatchError
from edbatch_tvm.graph import InstanceGraph
from schedules.cuda.kernels import Occupancy
from schedules.cuda.occupancy_records import records_path, write_record
from schedules.device_names import SHIPPED

FILLS = (128, 256, 64, 512, 32)
BLOCKS = (2, 1, 3)
"""What is tried, the default first."""

ROUNDS = 10

FAILED_SECONDS = 1e9
"""Time of a trial that could not be built or run."""


@dataclass(frozen=True)
class GpuTrial:
    """One setting, and the time of all minibatches with it; or why it could not be built."""

    machine: Occupancy
    seconds: float
    failed: str = ""


@dataclass(frozen=True, eq=False)
class GpuTuneReport:
    """What a tuning run on a GPU found.

    Attributes
    ----------
    device, database : str
    trials : list of GpuTrial
        In the order they were made; the first is the default.
    best : GpuTrial
    max_relative_error : float
        Of the best on fresh minibatches, against the float64 reference.
    seconds : float
    """

    device: str
    database: str
    trials: list[GpuTrial]
    best: GpuTrial
    max_relative_error: float
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The report as nested dicts of plain values."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """The figures for a reader."""
        rows = [("device", f"{self.device}, record in {self.database}")]
        for trial in self.trials:
            setting = f"fill {trial.machine.fill}, {trial.machine.blocks_per_unit} blocks"
            rows.append((setting, trial.failed or f"{1e3 * trial.seconds:.3f} ms"))
        gain = self.trials[0].seconds / self.best.seconds
        rows.append(("best", f"{self.best.machine}, {gain:.2f} x, relative error {self.max_relative_error:.1e}"))
        return rows


def tune_gpu(
    mod: IRModule,
    weights: Mapping[str, np.ndarray],
    minibatches: Sequence[Sequence[InstanceGraph]],
    fresh: Sequence[Sequence[InstanceGraph]],
    reference: Mapping[str, Function],
    target: Any = "cuda",
    trials: int = len(FILLS) * len(BLOCKS),
    database: str | Path | None = None,
    policy: PolicyLike = "auto",
) -> GpuTuneReport:
    """Time the settings on `minibatches`, check the fastest on `fresh` ones, keep it if it is right.

    Raises
    ------
    EdbatchError
        If there is nothing to time, the default cannot be built, or the best gives wrong results.
    """
    if not minibatches:
        raise DataError("no minibatches", "one or more")
    begin = perf_counter()
    device = find_backend(target).device
    candidates = [Occupancy(fill, blocks) for blocks, fill in product(BLOCKS, FILLS)][: max(1, trials)]
    model = compile_model(mod, weights, target=target, policy=policy, database=NO_RECORDS)
    work = []
    for instances in minibatches:
        graph = model.merge(instances)
        work.append((graph, model.plan(graph, model.schedule(graph)[0])))
    made = [GpuTrial(candidates[0], _time(model, work))]
    made += [_trial(mod, weights, target, policy, machine, work) for machine in candidates[1:]]
    best = min(made, key=lambda trial: trial.seconds)
    built = _built(mod, weights, target, policy, best.machine)
    error = max(_error(built, instances, weights, reference) for instances in fresh)
    if not error <= TOLERANCE:
        raise EdbatchError(f"tuned build is wrong: relative error {error:.3g}", f"{TOLERANCE:g} or less")
    folder = SHIPPED if database is None else Path(database)
    path = records_path(folder, device)
    write_record(
        path, built.executor.tuning_key, best.machine, {"seconds": best.seconds, "default_seconds": made[0].seconds}
    )
    return GpuTuneReport(device, str(path), made, best, error, perf_counter() - begin)


def _trial(
    mod: IRModule, weights: Any, target: Any, policy: PolicyLike, machine: Occupancy, work: Sequence[tuple[Any, Any]]
) -> GpuTrial:
    """The time of one setting; one that does not compile or run takes for ever."""
    try:
        return GpuTrial(machine, _time(_built(mod, weights, target, policy, machine), work))
    except (EdbatchError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return GpuTrial(machine, FAILED_SECONDS, reason)


def _built(mod: IRModule, weights: Any, target: Any, policy: PolicyLike, machine: Occupancy) -> Any:
    return compile_model(mod, weights, target=target, policy=policy, database=machine)


def _time(model: Any, work: Sequence[tuple[Any, Any]]) -> float:
    """Sum over the minibatches of the median time to execute one."""
    total = 0.0
    for graph, plan in work:
        model.execute(graph, plan).synchronize()
        times = []
        for _ in range(ROUNDS):
            begin = perf_counter()
            model.execute(graph, plan).synchronize()
            times.append(perf_counter() - begin)
        total += median(times)
    return total


def _error(model: Any, instances: Sequence[InstanceGraph], weights: Any, reference: Mapping[str, Function]) -> float:
    graph = model.merge(instances)
    plan = model.plan(graph, model.schedule(graph)[0])
    return compare(graph, model.execute(graph, plan), run_reference(graph, reference, weights)).relative_error
