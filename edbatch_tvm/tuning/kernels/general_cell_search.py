"""Search for cells outside the stage form: MetaSchedule on tiles of instances.

For each tile size, MetaSchedule's evolutionary search proposes schedules of the tile's blocks. Each is timed inside the
kernel it is meant for, beside the kernel without tiles. At the end, the best ones of each size are timed again, and
then kernels with the tiles up to each size on every batch size that matters; that settles from which batch size on a
tile is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm import IRModule
from tvm.target import Target

from edbatch_tvm.tuning.kernels.database import FAILED_SECONDS, TuningDatabase, trace_key
from edbatch_tvm.tuning.kernels.general_cell_records import SIZES, tile_of, with_least
from edbatch_tvm.tuning.kernels.search_result import FINAL_ROUNDS, BucketGain, Load, Outcome, Progress, faster, ratio
from edbatch_tvm.tuning.kernels.timing import Candidate, Timer, TrialFailed
from edbatch_tvm.tvm_compat import Trace, tirx
from edbatch_tvm.tvm_compat import meta_schedule as ms
from schedules.cpu.general_cells import lower_blocks
from schedules.cpu.instance_tiles import TunedTile, tile_cell
from schedules.cpu.machine import machine_of
from schedules.cpu.metaschedule_space import TileContext
from schedules.cpu.register_tiles import register_tiled

SHARES = {16: 2, 4: 1, 1: 1}
"""How trials are shared among the sizes that are used."""

ROUND = 8
"""Candidates that MetaSchedule proposes at a time."""

FINALISTS = 3

REGISTER_SHARE = 3
"""How many candidates with tiles in registers come on one that MetaSchedule's rules make, at first."""


@dataclass(frozen=True)
class TileSubject:
    """A cell to tune.

    Attributes
    ----------
    name : str
    function : PrimFunc
        The fused cell.
    per_instance : list of buffers
        Its inputs and outputs.
    candidate : callable
        ``candidate(tiles, count)`` is the cell's kernel with these tiles, on a batch of `count`.
    """

    name: str
    function: tirx.PrimFunc
    per_instance: list[Any] = field(hash=False)
    candidate: Callable[[Sequence[TunedTile], int], Candidate]

    def module(self, size: int) -> IRModule:
        """The workload of a tile of `size` instances."""
        return IRModule({"main": tile_cell(self.function, self.per_instance, size)})


def used_sizes(loads: Sequence[Load]) -> list[int]:
    """The tile sizes that batches of these sizes fill, the largest first."""
    used = []
    for size in SIZES:
        larger = min((other for other in SIZES if other > size), default=None)
        if any((load.count % larger if larger else load.count) >= size for load in loads):
            used.append(size)
    return used


def split_trials(sizes: Sequence[int], trials: int) -> dict[int, int]:
    """Trials of each size."""
    total = sum(SHARES[size] for size in sizes)
    return {size: trials * SHARES[size] // total for size in sizes}


def tune_tiles(
    subject: TileSubject,
    loads: Sequence[Load],
    trials: int,
    database: TuningDatabase,
    timer: Timer,
    target: Target,
    threads: int,
    seed: int,
    progress: Progress,
) -> Outcome:
    """Search schedules for `subject` and keep those that are faster on the batch sizes `loads`.

    Parameters
    ----------
    trials : int
        All sizes together, with those that `database` already has.
    threads : int
        Of this machine, for the search itself.
    """
    sizes = used_sizes(loads)
    tiles: list[TunedTile] = []
    found: dict[int, tuple[IRModule, Trace, float]] = {}
    made = failed = 0
    for size, share in split_trials(sizes, trials).items():
        module = subject.module(size)
        load = max((load for load in loads if load.count >= size), key=lambda one: one.nodes)
        search = _TileSearch(subject, module, size, load.count, database, timer, target)
        search.run(share, threads, seed, progress)
        made, failed = made + search.made, failed + search.failed
        best = search.finalist()
        if best is not None:
            found[size] = module, *best
            tiles.append(tile_of(module, best[0], size))
    gains, least = _settle(subject, tiles, loads, timer)
    database.keep(
        (module, with_least(module, trace, least[size]) if size in least else None, seconds)
        for size, (module, trace, seconds) in found.items()
    )
    return Outcome(subject.name, "tiles", gains, made, failed)


class _TileSearch:
    """The search for one tile size."""

    def __init__(
        self,
        subject: TileSubject,
        module: IRModule,
        size: int,
        count: int,
        database: TuningDatabase,
        timer: Timer,
        target: Target,
    ) -> None:
        self.subject = subject
        self.module = module
        self.size = size
        self.count = count
        self.database = database
        self.timer = timer
        self.target = target
        self.plain = subject.candidate((), count)
        self.done = {trace_key(trace): seconds for trace, seconds in database.trials(module)}
        self.made = self.failed = 0

    def run(self, trials: int, threads: int, seed: int, progress: Progress) -> None:
        """Make trials until the database has this number of them."""
        left = trials - len(self.done)
        if left <= 0:
            return
        strategy = ms.search_strategy.EvolutionarySearch(
            population_size=64, init_min_unmeasured=16, genetic_num_iters=2
        )
        # A resumed search goes on where the database ends: with another seed it does not propose the same again.
        seed += 1 + len(self.done)
        context = TileContext(self.module, self.target, strategy, seed, threads)
        try:
            spaces = context.generate_design_space()
        except RuntimeError:
            context = TileContext(self.module, self.target, strategy.clone(), seed, threads, reuse=False)
            spaces = context.generate_design_space()
        # Most candidates of MetaSchedule's own rules are several times slower than no tiles at all.
        tiled = register_tiled(self.module, machine_of(self.target).lanes, seed)
        if tiled is not None:
            spaces = [*spaces, *[tiled] * (REGISTER_SHARE * len(spaces))]
        measured = ms.database.MemoryDatabase()
        workload = measured.commit_workload(self.module)
        for trace, seconds in self.database.trials(self.module):
            measured.commit_tuning_record(ms.database.TuningRecord(trace, workload, seconds, self.target, None))
        model = cost_model(threads, seed)
        context.pre_tuning(max(4 * trials, ROUND), ROUND, spaces, measured, model)
        while left > 0:
            candidates = context.generate_measure_candidates()
            if not candidates:
                return
            results = []
            for candidate in candidates:
                trace = candidate.sch.trace
                seconds = self.done.get(trace_key(trace), [])
                if not seconds and left > 0:
                    seconds, label = self._trial(candidate)
                    left -= 1
                    progress(f"{self.subject.name}, tile {self.size}", label)
                    measured.commit_tuning_record(ms.database.TuningRecord(trace, workload, seconds, self.target, None))
                results.append(ms.runner.RunnerResult(seconds or None, None if seconds else "not measured"))
            context.notify_runner_results(candidates, results)
            model.update(context, candidates, results)

    def _trial(self, candidate: Any) -> tuple[list[float], float | None]:
        """Time one candidate; its seconds, and its time relative to the kernel without tiles."""
        trace = candidate.sch.trace
        try:
            tile = TunedTile(self.size, 1, lower_blocks(candidate.sch.mod))
            plain, seconds = self.timer.time([self.plain, self.subject.candidate([tile], self.count)])
            label: float | None = ratio(seconds, plain)
        except TrialFailed:
            seconds, label = [FAILED_SECONDS], None
            self.failed += 1
        self.made += 1
        self.database.add_trial(self.module, trace, seconds)
        self.done[trace_key(trace)] = seconds
        return seconds, label

    def finalist(self) -> tuple[Trace, float] | None:
        """The best trace and its seconds, among the best of all trials timed again side by side."""
        trials = sorted(self.database.trials(self.module), key=lambda one: min(one[1]))
        traces = [trace for trace, seconds in trials[:FINALISTS] if min(seconds) < FAILED_SECONDS]
        if not traces:
            return None
        tiles = [tile_of(self.module, trace, self.size) for trace in traces]
        try:
            times = self.timer.time([self.subject.candidate([tile], self.count) for tile in tiles], FINAL_ROUNDS)
        except TrialFailed:
            return None
        best = min(range(len(traces)), key=lambda number: min(times[number]))
        return traces[best], min(times[best])


def _settle(
    subject: TileSubject, tiles: Sequence[TunedTile], loads: Sequence[Load], timer: Timer
) -> tuple[tuple[BucketGain, ...], dict[int, int]]:
    """From which batch size on each tile is used, and what that gains on each load.

    A kernel with the tiles up to some size is timed on every load beside the kernel without. A size is used from the
    smallest load on from which every larger one is fastest with tiles of at least that size.
    """
    options = [tuple(tiles[number:]) for number in range(len(tiles), -1, -1)]
    times = [_time_options(subject, options, load, timer) for load in loads]
    best = [_best_option(one) for one in times]
    least: dict[int, int] = {}
    for number in range(1, len(options)):
        begins = [load.first for load, one in zip(loads, best, strict=True) if one < number]
        size = options[number][0].size
        later = [load.first for load in loads if load.first > max(begins, default=0)]
        if later:
            least[size] = max(size, 1 if not begins else min(later))
    gains = []
    sizes = [option[0].size for option in options[1:]]
    for load, one in zip(loads, times, strict=True):
        used = [number for number, size in enumerate(sizes, 1) if size in least and load.count >= least[size]]
        number = max(used, default=0)
        text = "tiles of " + ", ".join(str(tile.size) for tile in options[number]) if number else "default"
        gains.append(BucketGain(load, min(one[0]), min(one[number]), text))
    return tuple(gains), least


def _time_options(
    subject: TileSubject, options: Sequence[Sequence[TunedTile]], load: Load, timer: Timer
) -> list[list[float]]:
    try:
        return timer.time([subject.candidate(option, load.count) for option in options], FINAL_ROUNDS)
    except TrialFailed:
        return [[FAILED_SECONDS]] * len(options)


def _best_option(times: Sequence[Sequence[float]]) -> int:
    """The fastest option; 0, no tiles, unless another is faster by more than noise."""
    best = min(range(len(times)), key=lambda number: min(times[number]))
    return best if best and faster(times[best], times[0]) else 0


def cost_model(threads: int, seed: int) -> Any:
    """MetaSchedule's boosted trees where XGBoost is installed; otherwise candidates are not ranked."""
    try:
        import xgboost  # noqa: F401
    except ImportError:
        return ms.cost_model.RandomModel(seed=seed)
    return ms.cost_model.XGBModel(num_warmup_samples=ROUND, num_tuning_cores=threads)
