"""Runs from end to end through the compiler: right values, few batches, nothing gathered by copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from edbatch_tvm.batching import policy_names
from edbatch_tvm.models import WORKLOADS
from edbatch_tvm.models import measure as measure_module
from edbatch_tvm.models.measure import RunOptions, RunReport, measure, prepare, run, unbatched_seconds


@pytest.fixture(autouse=True)
def peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time for large matrix products."""
    monkeypatch.setattr(measure_module, "peak_gflops", lambda: 1.0)


def checked(options: RunOptions) -> RunReport:
    """The report of a run whose results are right."""
    report, comparison = run(options)
    assert comparison is not None
    comparison.require()
    assert report.bytes_gathered == 0
    return report


@pytest.mark.parametrize(
    ("name", "policy"), [("treelstm", "fsm"), ("bilstm-tagger", "fsm"), ("lattice-lstm", "lookahead")]
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


def test_unbatched_is_slower() -> None:
    prepared = prepare(RunOptions("treelstm", hidden=64, batch_size=16, minibatches=1, repeat=2))
    report, _ = measure(prepared)
    assert report.policy in policy_names()  # `auto` took one of them
    assert unbatched_seconds(prepared, prepared.minibatches[0]) > report.seconds.execute


DATA = {
    "treelstm": ("sst/dev.txt", "sst/train.txt"),
    "bilstm-tagger": ("wikiner/train.txt", None),
    "lattice-lstm": ("lattice/dev.txt", "lattice/train.txt"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKLOADS)
def test_real_instances(name: str, shared_data: Path) -> None:
    data, learn_data = DATA[name]
    report = checked(
        RunOptions(
            name,
            data=shared_data / data,
            learn_data=shared_data / learn_data if learn_data else None,
            hidden=256,
            minibatches=6,
            policy="fsm",
            check=True,
        )
    )
    limit = 1.6 if name == "lattice-lstm" else 1.0
    assert report.batches <= limit * report.lower_bound
    assert report.policy_misses <= 0.02 * report.policy_steps or name == "lattice-lstm"


@pytest.mark.slow
def test_lookahead_on_real_lattices(shared_data: Path) -> None:
    report = checked(RunOptions("lattice-lstm", data=shared_data / "lattice/dev.txt", policy="lookahead", check=True))
    assert report.batches <= 1.4 * report.lower_bound
