"""Timing of kernels: side by side, in a worker that may die, and what the benches hold."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.script import tirx as T
from tvm.target import Target

from edbatch_tvm.tuning.kernels.timing import Candidate, LocalTimer, TrialFailed, waiting_seconds
from edbatch_tvm.tuning.kernels.timing_inputs import Argument, TimingInputs
from edbatch_tvm.tuning.kernels.timing_worker import WorkerTimer

TARGET = {"kind": "llvm"}


def candidate(repeat: int, name: str = "work", stride: int = 1) -> Candidate:
    """A kernel that goes over its argument `repeat` times; with a huge stride, far outside of it."""

    @T.prim_func
    def work(
        step: T.int32,
        steps: T.Buffer((1, 1), "int32"),
        index: T.Buffer((1,), "int32"),
        x: T.Buffer((4096,), "float32"),
    ):
        T.func_attr({"global_symbol": "work"})
        for r, i in T.grid(repeat, 64):
            x[i * stride] = x[i * stride] * T.float32(0.5) + T.Cast("float32", index[0] + r)

    bench = TimingInputs(name, 1, (0,), (), False, (Argument((4096,), "float32"),))
    return Candidate.of(work, bench)


def hanging() -> Candidate:
    @T.prim_func
    def work(
        step: T.int32,
        steps: T.Buffer((1, 1), "int32"),
        index: T.Buffer((1,), "int32"),
        x: T.Buffer((4096,), "float32"),
    ):
        T.func_attr({"global_symbol": "work"})
        while index[0] == 0:
            x[0] = x[0] + T.float32(1)

    return Candidate.of(work, candidate(1).bench)


def test_more_work_takes_longer() -> None:
    timer = LocalTimer(Target(TARGET))
    little, much = timer.time([candidate(1), candidate(100)], rounds=3)
    assert len(little) == len(much) == 3
    assert 10 * min(little) < min(much)


def test_what_cannot_be_built_is_a_failed_trial() -> None:
    with pytest.raises(TrialFailed, match="Expecting value"):
        LocalTimer(Target(TARGET)).time([Candidate("no module", candidate(1).bench)])
    with pytest.raises(TrialFailed, match="missing"):
        LocalTimer(Target(TARGET)).time([candidate(1, name="missing")])


@pytest.mark.slow
def test_a_worker_outlives_its_candidates() -> None:
    timer = WorkerTimer(TARGET, timeout=30)
    try:
        assert min(timer.time([candidate(1)])[0]) > 0
        with pytest.raises(TrialFailed, match=r"the worker ended with status -\d+"):
            timer.time([candidate(1, stride=1 << 20)])
        assert timer.restarts == 1
        with pytest.raises(TrialFailed, match="missing"):
            timer.time([candidate(1, name="missing")])
        timer.timeout = 30
        assert min(timer.time([candidate(1)])[0]) > 0
        timer.timeout = 0.5
        with pytest.raises(TrialFailed, match="the worker did not answer in time"):
            timer.time([hanging()])
        assert timer.restarts == 2
    finally:
        timer.close()


def test_bench_arrays() -> None:
    bench = TimingInputs(
        "work", 3, (0, 3), ((1, 3), (4, 6)), True, (Argument((2, 4), "float32"), Argument((3, 1), "int32", 5))
    )
    steps, index, values, words = bench.arrays()
    assert steps.tolist() == [[0, 3]]
    assert sorted(index[:3].tolist()) == [1, 2, 3]
    assert sorted(index[3:9].tolist()) == [4, 5, 6, 7, 8, 9]
    assert index[9:13].tolist() == [0, 2, 4, 6]
    assert values.dtype == np.float32
    assert 0 <= words.min() <= words.max() < 5


def test_waiting_is_counted() -> None:
    assert waiting_seconds() >= 0
