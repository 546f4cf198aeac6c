"""The verb ``tune``: its options, its table, its errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edbatch_tvm.cli import main
from edbatch_tvm.tuning.kernels.search_result import BucketGain, Load, Outcome
from edbatch_tvm.tuning.model import TuneReport
from edbatch_tvm.tuning.model.tune_workload import TuneOptions
from edbatch_tvm.tuning.model.verify import Verification


def report(good: bool = True) -> TuneReport:
    gains = (
        BucketGain(Load(8, 15, 10, 4, 40), 4e-6, 2e-6, "6 x 1, chunks first"),
        BucketGain(Load(256, 0, 300, 2, 600), 1e-4, 1e-4, "default"),
    )
    checked = Verification(2, 2e-3, 1e-3 if good else 3e-3, 2e-7, 1e-7, "reference")
    outcome = Outcome("internal_stage0", "stage", gains)
    return TuneReport("haswell-2", "records/haswell-2", [outcome], 16, 1, 3, {"sum": "why"}, checked, 12.0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[TuneOptions]:
    options: list[TuneOptions] = []

    def tune_workload(given: TuneOptions, progress: Any) -> TuneReport:
        options.append(given)
        progress("internal_stage0, batch 8-15", 0.5)
        progress("internal_stage0, batch 8-15", None)
        return report(given.seed == 0)

    monkeypatch.setattr("edbatch_tvm.tuning.model.tune_workload.tune_workload", tune_workload)
    return options


def test_table_and_json(asked: list[TuneOptions], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["tune", "treelstm", "--hidden", "64", "--trials", "7", "--database", str(tmp_path)]
    assert main([*arguments, "--json", str(figures)]) == 0
    assert asked == [TuneOptions("treelstm", hidden=64, trials=7, database=tmp_path)]
    out, err = capsys.readouterr()
    assert err == ""
    out = " ".join(out.split())
    assert "trials 16 in 12 s, 1 failed; 3 known before" in out
    assert "internal_stage0 8-15 2.00 x 4.0 -> 2.0 µs 6 x 1, chunks first" in out
    assert "sum not tuned: why" in out
    assert "kept; relative error 2.0e-07 against the reference" in out
    buckets = json.loads(figures.read_text())["kernels"][0]["buckets"]
    assert [(bucket["batch"], bucket["gain"]) for bucket in buckets] == [("8-15", 2.0), ("256+", 1.0)]


def test_slower_builds_are_said_to_be_dropped(asked: list[TuneOptions], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "treelstm", "--seed", "1"]) == 0
    assert "slower: dropped" in capsys.readouterr().out


def test_trackers_and_databases_that_are_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["tune", "treelstm", "--tracker", "nowhere"]) == 1
    assert capsys.readouterr().err == "edbatch: error: tracker 'nowhere'; expected HOST:PORT\n"
    assert main(["run", "treelstm", "--hidden", "4", "--database", str(tmp_path / "none")]) == 1
    assert "none; expected a folder (hint: edbatch tune makes one)" in capsys.readouterr().err
