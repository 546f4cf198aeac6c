"""Runs from end to end through the compiler: right values, few batches, nothing gathered by copies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edbatch_tvm.batching import policy_names
from edbatch_tvm.benchmarking import measure as measure_module
from edbatch_tvm.benchmarking.measure import RunOptions, RunReport, measure, prepare, run, unbatched_seconds


@pytest.fixture(autouse=True)
def peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time for large matrix products."""
    monkeypatch.setattr(measure_module, "peak_gflops", lambda **_: 1.0)


def checked(options: RunOptions) -> RunReport:
    """The report of a run whose results are right."""
    report, comparison = run(options)
    assert comparison is not None
    comparison.require()
    assert report.bytes_gathered == 0
    return report


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("treelstm", "fsm"),
        pytest.param("bilstm-tagger", "fsm", marks=pytest.mark.slow),
        ("lattice-lstm", "lookahead"),
    ],
)
def test_generated_instances(name: str, policy: str) -> None:
    report = checked(RunOptions(name, hidden=24, batch_size=16, minibatches=2, policy=policy, check=True))
    assert (report.minibatches, report.instances) == (2, 32)
    assert report.max_relative_error is not None
    assert 0 < report.max_relative_error <= 1e-5
    assert report.seconds.total >= report.seconds.execute > 0
    assert sum(report.operands.values()) > 0
    assert report.compile_seconds > 0
    if policy == "fsm":
        assert report.batches == report.lower_bound
        assert report.policy_misses <= 0.02 * report.policy_steps
        assert report.learn_data == "generator"


def test_unbatched_runs_every_node_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(RunOptions("treelstm", hidden=64, batch_size=16, minibatches=1, repeat=2))
    report, _ = measure(prepared)
    assert report.policy in policy_names()  # `auto` took one of them
    batches: list[int] = []
    execute = prepared.model.execute

    def counted(graph: Any, plan: Any) -> Any:
        batches.append(len(plan.schedule))
        return execute(graph, plan)

    monkeypatch.setattr(prepared.model, "execute", counted)
    assert unbatched_seconds(prepared.model, prepared.minibatches[0]) > 0
    assert batches == [len(instance) for instance in prepared.minibatches[0]]
    assert sum(batches) > report.batches


TREES = ("sst/dev.txt", "sst/train.txt")
LATTICES = ("lattice/dev.txt", "lattice/train.txt")


@dataclass(frozen=True)
class Real:
    """Files of a workload and how few batches a learned policy needs on them, over the bound."""

    data: str
    learn_data: str | None = None
    at_most: float = 1.0
    hidden: int = 128
    minibatches: int = 4


REAL = {
    "treelstm": Real(*TREES, hidden=256),
    "bilstm-tagger": Real("wikiner/train.txt", hidden=256),
    "lattice-lstm": Real(*LATTICES, at_most=1.3, hidden=256),
    "treelstm-2type": Real(*TREES, at_most=1.3),
    "treegru": Real(*TREES),
    "mvrnn": Real(*TREES, hidden=32),
    "bilstm-tagger-char": Real("wikiner/train.txt", at_most=1.1),
    "lstm-nmt": Real("iwslt15/tst2012"),
    "lattice-gru": Real(*LATTICES, at_most=1.3),
    "childsum-tree": Real(*TREES),
    "grid-lstm": Real("iwslt15/tst2012", hidden=32, minibatches=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_instances(name: str, shared_data: Path) -> None:
    real = REAL[name]
    report = checked(
        RunOptions(
            name,
            data=shared_data / real.data,
            learn_data=shared_data / real.learn_data if real.learn_data else None,
            hidden=real.hidden,
            minibatches=real.minibatches,
            policy="fsm",
            check=True,
        )
    )
    assert report.batches <= real.at_most * report.lower_bound
    assert report.policy_misses <= 0.02 * report.policy_steps or real.at_most > 1.0


@pytest.mark.slow
def test_lookahead_on_real_lattices(shared_data: Path) -> None:
    report = checked(RunOptions("lattice-lstm", data=shared_data / "lattice/dev.txt", policy="lookahead", check=True))
    assert report.batches <= 1.4 * report.lower_bound
