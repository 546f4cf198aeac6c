"""The search over stage kernels, with made-up times: what it finds, keeps, repeats and survives."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tvm.target import Target

from edbatch_tvm.models import get_workload
from edbatch_tvm.tuning.kernels.database import TuningDatabase
from edbatch_tvm.tuning.kernels.record_keys import stage_key, stage_text
from edbatch_tvm.tuning.kernels.records import DatabaseRecords
from edbatch_tvm.tuning.kernels.search_result import Load, Outcome
from edbatch_tvm.tuning.kernels.stage_search import StageSubject, bucket_for, compose, space, tune_stage
from edbatch_tvm.tuning.kernels.timing import TrialFailed
from edbatch_tvm.tuning.model.tunable_kernels import find_subjects
from schedules.cpu.machine import AVX512
from schedules.cpu.stage_config import Bucket, StageConfig, default_config

SMALL, LARGE = Load(4, 7, 5, 10, 50), Load(256, 0, 300, 2, 600)


class MadeUp:
    """A timer whose times are a function of the variant; `cost` may raise."""

    def __init__(self, cost: Callable[[Bucket, int], float]) -> None:
        self.cost = cost
        self.asked = 0

    def time(self, candidates: Sequence[Any], rounds: int = 5) -> list[list[float]]:
        self.asked += 1
        return [[self.cost(bucket_for(config, count), count)] * rounds for config, count in candidates]

    def close(self) -> None:
        pass


def few_rows_are_best(bucket: Bucket, count: int) -> float:
    """Tiles of 2 rows and 2 chunks; for small batches in the order of rows."""
    best = abs(bucket.rows - 2) + abs(bucket.chunks - 2)
    return 1e-6 * (1 + best + (bucket.order != ("rows" if count < 100 else "chunks")))


@pytest.fixture(scope="module")
def subject() -> StageSubject:
    found = find_subjects(get_workload("treelstm").cells(32), AVX512).stages["internal_stage0"]
    return StageSubject(found.name, found.stage, found.machine, lambda config, count: (config, count))  # type: ignore[arg-type,return-value]


@pytest.fixture
def database(tmp_path: Path) -> TuningDatabase:
    return TuningDatabase(tmp_path, Target({"kind": "llvm", "mcpu": "haswell"}), 2, create=True)


def tuned(subject: StageSubject, database: TuningDatabase, timer: MadeUp, trials: int = 400, seed: int = 0) -> Outcome:
    loads = [(SMALL, trials), (LARGE, trials)]
    return tune_stage(subject, loads, database, timer, seed, lambda *_: None)


def test_finds_the_best_and_keeps_it(subject: StageSubject, database: TuningDatabase) -> None:
    outcome = tuned(subject, database, MadeUp(few_rows_are_best))
    assert [gain.tuned_seconds for gain in outcome.gains] == [1e-6, 1e-6]
    assert [gain.choice for gain in outcome.gains] == ["2 x 2, rows first", "2 x 2, chunks first"]
    config = DatabaseRecords(database).stage_config(subject.stage, subject.machine)
    assert config is not None
    assert bucket_for(config, 5) == Bucket(None, 2, 2, bucket_for(config, 5).unroll, "rows")
    assert bucket_for(config, 10_000).order == "chunks"
    default = default_config(subject.stage, subject.machine)
    assert bucket_for(config, 100) == bucket_for(default, 100)


def test_a_second_run_makes_no_trial(subject: StageSubject, database: TuningDatabase) -> None:
    first = tuned(subject, database, MadeUp(few_rows_are_best), trials=10)
    assert first.trials == 20
    again = TuningDatabase(database.path.parent, database.target, 2)
    second = tuned(subject, again, MadeUp(few_rows_are_best), trials=10)
    assert second.trials == 0
    assert [gain.choice for gain in second.gains] == [gain.choice for gain in first.gains]
    third = tuned(subject, again, MadeUp(few_rows_are_best), trials=15)
    assert 0 < third.trials <= 10
    texts = [json.dumps([str(x) for x in trace.insts[1].inputs]) for trace, _ in again.trials(_module(subject))]
    assert len(set(texts)) == len(texts) == 20 + third.trials


def test_candidates_that_fail_are_recorded(subject: StageSubject, database: TuningDatabase) -> None:
    def cost(bucket: Bucket, count: int) -> float:
        if bucket.chunks == 2:
            raise TrialFailed("crash")
        return few_rows_are_best(bucket, count)

    outcome = tuned(subject, database, MadeUp(cost))
    assert 0 < outcome.failed < outcome.trials
    assert all("x 2" not in gain.choice for gain in outcome.gains)


def test_noise_is_not_kept(subject: StageSubject, database: TuningDatabase) -> None:
    default = default_config(subject.stage, subject.machine)

    def cost(bucket: Bucket, count: int) -> float:
        return 1.0e-6 if bucket == bucket_for(default, count) else 0.97e-6

    outcome = tuned(subject, database, MadeUp(cost), trials=10)
    assert [gain.choice for gain in outcome.gains] == ["default", "default"]
    assert DatabaseRecords(database).stage_config(subject.stage, subject.machine) is None


def test_compose() -> None:
    one, two, three = Bucket(None, 1, 1), Bucket(None, 2, 1), Bucket(None, 3, 1)
    base = StageConfig((Bucket(1, 1, 1), Bucket(3, 2, 1), Bucket(None, 3, 1)))
    assert compose(base, {}) == base
    config = compose(base, {(4, 7): one, (256, 0): two})
    limits = [(bucket.upto, bucket.rows) for bucket in config.buckets]
    assert limits == [(1, 1), (3, 2), (7, 1), (255, 3), (None, 2)]
    for rows in range(1, 300):
        expected = one if 4 <= rows <= 7 else two if rows >= 256 else bucket_for(base, rows)
        assert bucket_for(config, rows) == expected
    assert compose(base, {(1, 1): three, (2, 3): three}) == StageConfig((three,))


def test_space_fits(subject: StageSubject) -> None:
    points = space(subject.stage, subject.machine)
    assert len(points) == len(set(points)) > 50
    assert bucket_for(default_config(subject.stage, subject.machine), 1000) in points


def test_names_do_not_matter() -> None:
    stages = find_subjects(get_workload("bilstm-tagger").cells(32), AVX512).stages
    one, other = stages["forward_layer2_stage0"].stage, stages["backward_layer2_stage0"].stage
    assert str(one) != str(other)
    assert stage_text(one) == stage_text(other)
    assert stage_text(one) != stage_text(stages["tag_stage0"].stage)


def _module(subject: StageSubject) -> Any:
    return stage_key(subject.stage, subject.machine)
