"""A whole tuning run: what it reports, keeps and repeats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tvm.s_tir import meta_schedule as ms

import edbatch_tvm as eb
from edbatch_tvm.errors import DatabaseError, DataError, EdbatchError, TargetError
from edbatch_tvm.tuning.kernels.timing import Candidate, LocalTimer, TrialFailed
from edbatch_tvm.tuning.model.verify import Verification
from relay_ext.signature import signature_of
from tests.tuning import user_cell

pytest.importorskip("psutil")

H = 32


def tune(database: Path, trials: int = 12, hidden: int = H, **options: Any) -> eb.TuneReport:
    mod = user_cell.cells(hidden)
    signature = signature_of(mod)
    data = user_cell.minibatches(signature, 2, 8, seed=0)
    fresh = user_cell.minibatches(signature, 1, 8, seed=1)
    weights = user_cell.weights(hidden)
    options = {"reference": user_cell.REFERENCE, "fresh": fresh, "isolate": False, **options}
    return eb.tune(mod, weights, data, trials=trials, database=database, **options)


class Scripted(LocalTimer):
    """Times by script: kernels with tiles take half of the time, and every third candidate crashes."""

    asked = 0

    def time(self, candidates: Sequence[Candidate], rounds: int = 5) -> list[list[float]]:
        Scripted.asked += 1
        if Scripted.asked % 3 == 0 and rounds == 5:
            raise TrialFailed("crash")
        longest = max(len(candidate.module) for candidate in candidates)
        plain = min(len(candidate.module) for candidate in candidates)
        return [[1e-6 if len(c.module) == plain < longest else 5e-7] * rounds for c in candidates]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    Scripted.asked = 0
    monkeypatch.setattr("edbatch_tvm.tuning.model.tune.LocalTimer", Scripted)
    monkeypatch.setattr(
        "edbatch_tvm.tuning.kernels.general_cell_search.cost_model", lambda *_: ms.cost_model.RandomModel(seed=0)
    )
    # Real times of tiny kernels are noise: the script decides.
    monkeypatch.setattr("edbatch_tvm.tuning.model.verify.NOISE", 1e9)


@pytest.mark.slow
@pytest.mark.usefixtures("scripted")
def test_keeps_what_is_faster_and_repeats_nothing(tmp_path: Path) -> None:
    seen: list[tuple[str, float | None]] = []
    report = tune(tmp_path, progress=lambda name, ratio: seen.append((name, ratio)))
    assert report.trials == len(seen) >= 8
    assert report.failed == sum(ratio is None for _, ratio in seen) > 0
    assert report.known == 0
    assert report.verification is not None
    assert report.verification.against == "reference"
    assert report.verification.max_relative_error < 1e-5
    (mix,) = (outcome for outcome in report.kernels if outcome.name == "mix")
    assert mix.kind == "tiles"
    assert all(gain.gain >= 1 for gain in mix.gains)
    assert any(gain.gain == 2 and gain.choice.startswith("tiles of") for gain in mix.gains)
    again = tune(tmp_path)
    assert (again.trials, again.known) == (0, report.trials)
    figures = again.as_json()
    assert figures["kernels"][0]["buckets"][0].keys() >= {"batch", "gain", "default_seconds", "tuned_seconds"}


@pytest.mark.slow
@pytest.mark.usefixtures("scripted")
def test_a_wrong_build_keeps_nothing(tmp_path: Path) -> None:
    wrong = {**user_cell.REFERENCE, "mix": lambda a, b, W, V: (a + b,)}
    with pytest.raises(EdbatchError, match="tuned kernels are off by"):
        tune(tmp_path, reference=wrong)
    (device,) = tmp_path.iterdir()
    assert (device / "database_tuning_record.json").read_text() == ""
    assert (device / "trials_tuning_record.json").read_text().count("\n") >= 8


def test_bad_input(tmp_path: Path) -> None:
    mod, weights = user_cell.cells(H), user_cell.weights(H)
    with pytest.raises(DataError, match="no minibatches to tune on"):
        eb.tune(mod, weights, [])
    data = user_cell.minibatches(signature_of(mod), 1, 2, seed=0)
    with pytest.raises(TargetError, match="tuning for target 'cuda-emulated'; expected an llvm target"):
        eb.tune(mod, weights, data, target="cuda-emulated")
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseError, match="expected a folder to write to"):
        tune(tmp_path / "file")
    with pytest.raises(DatabaseError, match="expected a folder"):
        eb.compile(mod, weights, database=tmp_path / "nowhere")


def test_what_counts_as_right() -> None:
    def right(error: float, default: float) -> bool:
        return Verification(1, 1.0, 1.0, error, default, "reference").right

    assert right(9e-6, 0.0)
    assert not right(1.1e-5, 1e-7)
    # A cell that magnifies rounding: the default build is off too.
    assert right(3.1e-5, 3e-5)
    assert not right(7e-5, 3e-5)
    # So far off is not rounding: the reference computes something else.
    assert not right(0.5, 0.5)
    assert not right(float("nan"), 3e-5)
    assert not right(1.0, float("nan"))


@pytest.mark.slow
def test_a_user_cell_gets_faster(tmp_path: Path) -> None:
    # Buckets that matter get 8 trials at least, so that it makes a few more than it is told.
    report = tune(tmp_path, trials=62, hidden=128, isolate=True)
    assert report.verification is not None
    assert report.verification.good
    (mix,) = (outcome for outcome in report.kernels if outcome.name == "mix")
    busiest = max(mix.gains, key=lambda gain: gain.load.nodes)
    assert busiest.gain >= 1.5, f"{busiest}"
    assert mix.trials <= 64
    assert report.trials <= 72
