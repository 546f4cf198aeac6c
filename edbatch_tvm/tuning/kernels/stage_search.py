"""Search for stage kernels: tiles, unrolling and loop order, for each bucket of batch sizes.

Whether threads share the tiles stays as it is by default: on a machine that others use too, timing says that one
thread is better. The space of a bucket has about two hundred points (:class:`schedules.cpu.stage_config.Bucket`). The
search starts at the default and climbs: it tries points that differ from the best one so far in one field, in seeded
random order, and now and then any point; it ends when every neighbour of the best has been tried. The best few are then
timed again beside the default.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from edbatch_tvm.errors import ConfigError, DatabaseError
from edbatch_tvm.tuning.kernels.database import FAILED_SECONDS, TuningDatabase, config_of, config_trace
from edbatch_tvm.tuning.kernels.record_keys import stage_key
from edbatch_tvm.tuning.kernels.search_result import FINAL_ROUNDS, BucketGain, Load, Outcome, Progress, faster, ratio
from edbatch_tvm.tuning.kernels.timing import Candidate, Timer, TrialFailed
from edbatch_tvm.tuning.kernels.timing_inputs import VARIADIC_ROWS
from schedules.cpu.machine import Machine
from schedules.cpu.stage_config import UNROLLS, Bucket, StageConfig, chunks_of, default_config, gates_at_once
from schedules.stage import Stage

ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14)
CHUNKS = (1, 2, 3, 4)

FINALISTS = 3

RANDOM_SHARE = 0.2
"""How often the next point is any point of the space instead of a neighbour of the best."""


@dataclass(frozen=True)
class StageSubject:
    """A stage to tune.

    Attributes
    ----------
    name : str
    stage : Stage
    machine : Machine
    candidate : callable
        ``candidate(config, count)`` is the stage's kernel in this configuration, on a batch of `count`.
    """

    name: str
    stage: Stage
    machine: Machine
    candidate: Callable[[StageConfig, int], Candidate]


def space(stage: Stage, machine: Machine) -> list[Bucket]:
    """Every variant that is worth a trial: accumulators may fill the registers, with a few over."""
    gates = gates_at_once(stage, machine)
    found = []
    for rows in ROWS:
        for chunks in CHUNKS:
            if chunks > chunks_of(stage, machine) or (rows * chunks > 1 and gates * rows * chunks > machine.registers):
                continue
            for unroll in UNROLLS if stage.gates else UNROLLS[:1]:
                for order in ("chunks", "rows"):
                    bucket = Bucket(None, rows, chunks, unroll, order)
                    if _fits(stage, machine, bucket):
                        found.append(bucket)
    return found


def _fits(stage: Stage, machine: Machine, bucket: Bucket) -> bool:
    try:
        StageConfig((bucket,)).check(stage, machine)
    except ConfigError:
        return False
    return True


def bucket_for(config: StageConfig, rows: int) -> Bucket:
    """The variant that runs `rows` rows, as an open one."""
    for bucket in config.buckets:
        if bucket.upto is None or rows <= bucket.upto:
            return replace(bucket, upto=None)
    raise AssertionError("the last bucket is open")


def compose(base: StageConfig, choices: Mapping[tuple[int, int], Bucket]) -> StageConfig:
    """`base` with another variant in some ranges of rows.

    Parameters
    ----------
    choices : mapping of (first, last) to Bucket
        The last row of an open range is 0. Ranges do not overlap.
    """
    ends = {bucket.upto for bucket in base.buckets}
    for first, last in choices:
        ends |= {first - 1 or None, last or None}
    limits: list[int | None] = [*sorted(end for end in ends if end), None]
    buckets: list[Bucket] = []
    for limit in limits:
        begin = (buckets[-1].upto or 0) + 1 if buckets else 1
        chosen = bucket_for(base, limit if limit is not None else max(begin, 1 << 30))
        for (first, last), bucket in choices.items():
            if first <= begin and (last == 0 or (limit is not None and limit <= last)):
                chosen = bucket
        if buckets and replace(buckets[-1], upto=None) == replace(chosen, upto=None):
            buckets.pop()
        buckets.append(replace(chosen, upto=limit))
    return StageConfig(tuple(buckets))


def tune_stage(
    subject: StageSubject,
    loads: Sequence[tuple[Load, int]],
    database: TuningDatabase,
    timer: Timer,
    seed: int,
    progress: Progress,
) -> Outcome:
    """Search a configuration for each load and keep those that are faster than the default.

    Parameters
    ----------
    loads : sequence of (Load, int)
        Batch sizes, and the trials for each, with those that `database` already has.
    """
    module = stage_key(subject.stage, subject.machine)
    default = default_config(subject.stage, subject.machine)
    search = _StageSearch(subject, module, default, database, timer, progress)
    choices: dict[tuple[int, int], Bucket] = {}
    for number, (load, trials) in enumerate(loads):
        search.run(load, trials, random.Random(1000 * seed + number))
        best = search.best(load)
        if best is not None:
            choices[_rows(subject.stage, load)] = best
    gains = _settle(subject, default, choices, [load for load, _ in loads], timer)
    shown = [_rows(subject.stage, gain.load) for gain in gains if gain.choice != "default"]
    tuned = compose(default, {rows: choices[rows] for rows in shown})
    trace = config_trace(module, json.dumps(tuned.as_json())) if shown else None
    database.keep([(module, trace, sum(gain.tuned_seconds for gain in gains))])
    return Outcome(subject.name, "stage", gains, search.made, search.failed)


def _rows(stage: Stage, load: Load) -> tuple[int, int]:
    """The range of rows of a load."""
    scale = _scale(stage)
    return scale * (load.first - 1) + 1, scale * load.last


def _scale(stage: Stage) -> int:
    """Rows of an instance."""
    return VARIADIC_ROWS if stage.domain == "rows" else 1


class _StageSearch:
    """The trials of one stage."""

    def __init__(
        self,
        subject: StageSubject,
        module: Any,
        default: StageConfig,
        database: TuningDatabase,
        timer: Timer,
        progress: Progress,
    ) -> None:
        self.subject = subject
        self.module = module
        self.default = default
        self.database = database
        self.timer = timer
        self.progress = progress
        self.space = space(subject.stage, subject.machine)
        self.made = self.failed = 0
        self.done: dict[str, dict[Bucket, float]] = {}
        for trace, seconds in database.trials(module):
            load, bucket = _read_trial(config_of(trace))
            self.done.setdefault(load, {})[bucket] = min(seconds)

    def run(self, load: Load, trials: int, rng: random.Random) -> None:
        """Make trials for one load up to this number, or until nothing near the best is left to try."""
        done = self.done.setdefault(str(load), {})
        for bucket in self._order(load, rng):
            if len(done) >= trials:
                return
            done[bucket] = self._trial(load, bucket)

    def _order(self, load: Load, rng: random.Random) -> Iterator[Bucket]:
        """The next point to try, again and again."""
        done = self.done[str(load)]
        start = self._start(load)
        space = [replace(one, parallel=start.parallel) for one in self.space]
        if start not in done:
            yield start
        while True:
            best = min(done, key=lambda bucket: done[bucket])
            near = [one for one in space if one not in done and _distance(one, best) == 1]
            if not near:
                return
            rest = [one for one in space if one not in done]
            yield rng.choice(rest if rng.random() < RANDOM_SHARE else near)

    def _start(self, load: Load) -> Bucket:
        return bucket_for(self.default, _scale(self.subject.stage) * load.count)

    def _trial(self, load: Load, bucket: Bucket) -> float:
        plain = self.subject.candidate(self.default, load.count)
        label: float | None = None
        try:
            base, times = self.timer.time([plain, self.subject.candidate(StageConfig((bucket,)), load.count)])
            label = ratio(times, base)
            # As multiples of the first trial, the default's own: so trials made at other times can be compared.
            seconds = [second * self._reference(load, base) / min(base) for second in times]
        except TrialFailed:
            seconds = [FAILED_SECONDS]
            self.failed += 1
        self.made += 1
        text = json.dumps({"load": str(load), "bucket": asdict(bucket)})
        self.database.add_trial(self.module, config_trace(self.module, text), seconds)
        self.progress(f"{self.subject.name}, batch {load}", label)
        return min(seconds)

    def _reference(self, load: Load, base: Sequence[float]) -> float:
        first = self.done[str(load)].get(self._start(load), FAILED_SECONDS)
        return first if first < FAILED_SECONDS else min(base)

    def best(self, load: Load) -> Bucket | None:
        """The best variant for `load`, timed again beside the default; None where that stays."""
        done = self.done[str(load)]
        good = sorted((seconds, number) for number, seconds in enumerate(done.values()) if seconds < FAILED_SECONDS)
        start = self._start(load)
        buckets = [bucket for bucket in (list(done)[number] for _, number in good) if bucket != start][:FINALISTS]
        configs = [self.default, *(StageConfig((bucket,)) for bucket in buckets)]
        candidates = [self.subject.candidate(config, load.count) for config in configs]
        try:
            base, *times = self.timer.time(candidates, FINAL_ROUNDS)
        except TrialFailed:
            return None
        ranked = sorted(zip(map(min, times), range(len(times)), strict=True))
        return buckets[ranked[0][1]] if ranked and faster(times[ranked[0][1]], base) else None


def _settle(
    subject: StageSubject,
    default: StageConfig,
    choices: Mapping[tuple[int, int], Bucket],
    loads: Sequence[Load],
    timer: Timer,
) -> tuple[BucketGain, ...]:
    """What the kernel with all choices gains on each load; a choice that does not show there is dropped."""
    whole = compose(default, choices)
    gains = []
    for load in loads:
        rows = _rows(subject.stage, load)
        try:
            base, tuned = timer.time(
                [subject.candidate(default, load.count), subject.candidate(whole, load.count)], FINAL_ROUNDS
            )
        except TrialFailed:
            base = tuned = [FAILED_SECONDS]
        if rows in choices and faster(tuned, base):
            gains.append(BucketGain(load, min(base), min(tuned), bucket_text(choices[rows])))
        else:
            gains.append(BucketGain(load, min(base), min(base), "default"))
    return tuple(gains)


def bucket_text(bucket: Bucket) -> str:
    """A variant in a few words."""
    parts = [f"{bucket.rows} x {bucket.chunks}"]
    if bucket.unroll > 1:
        parts.append(f"unroll {bucket.unroll}")
    parts.append(f"{bucket.order} first")
    if not bucket.parallel:
        parts.append("one thread")
    return ", ".join(parts)


def _distance(one: Bucket, other: Bucket) -> int:
    """Fields in which two variants differ; the next larger or smaller number counts as one field, others as two."""
    near = 0
    for name, values in (("rows", ROWS), ("chunks", CHUNKS), ("unroll", UNROLLS)):
        mine, theirs = getattr(one, name), getattr(other, name)
        if mine != theirs:
            step = abs(_place(values, mine) - _place(values, theirs))
            near += 1 if step <= 2 else 2
    return near + (one.order != other.order)


def _place(values: Sequence[int], value: int) -> float:
    below = sum(other < value for other in values)
    return below if value in values else below - 0.5


def _read_trial(text: str) -> tuple[str, Bucket]:
    try:
        value = json.loads(text)
        return str(value["load"]), Bucket(**value["bucket"])
    except (ValueError, TypeError, KeyError):
        raise DatabaseError(f"a trial {text!r}", "a load and a bucket") from None


def read_config(text: str) -> StageConfig:
    """The configuration of a kept record.

    Raises
    ------
    DatabaseError
        If it is something else.
    """
    try:
        return StageConfig.from_json(json.loads(text))
    except (ValueError, ConfigError):
        raise DatabaseError(f"a stage configuration {text!r}", "a list of buckets") from None
