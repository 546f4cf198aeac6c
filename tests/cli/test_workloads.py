"""``edbatch run`` of every workload from the command line: generated instances, and real ones where there are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edbatch_tvm.benchmarking import measure as measure_module
from edbatch_tvm.cli import main
from edbatch_tvm.models import WORKLOADS, get_workload
from tests.cli.fake_model import FakeModel

SMALL = ("--hidden", "16", "--batch-size", "16", "--minibatches", "1", "--policy", "lookahead", "--check")

DATA = {
    "treelstm": "sst/dev.txt",
    "bilstm-tagger": "wikiner/train.txt",
    "lattice-lstm": "lattice/dev.txt",
    "treelstm-2type": "sst/dev.txt",
    "treegru": "sst/dev.txt",
    "mvrnn": "sst/dev.txt",
    "bilstm-tagger-char": "wikiner/train.txt",
    "lstm-nmt": "iwslt15/tst2012",
    "lattice-gru": "lattice/dev.txt",
    "childsum-tree": "sst/dev.txt",
    "grid-lstm": "iwslt15/tst2012",
}


@pytest.fixture
def peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time for large matrix products."""
    monkeypatch.setattr(measure_module, "peak_gflops", lambda **_: 1.0)


def checked_run(capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
    assert main(["run", *arguments, *SMALL, "--json", "-"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert captured.err == ""
    assert report["workload"] == arguments[0]
    assert report["instances"] == 16
    assert 0 < report["max_relative_error"] <= 1e-5
    assert report["largest_value"] >= 1e-2
    assert report["batches"] >= report["lower_bound"] > 0
    assert report["gflops"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("peak")
@pytest.mark.parametrize("name", WORKLOADS)
def test_generated_instances(capsys: pytest.CaptureFixture[str], name: str) -> None:
    checked_run(capsys, name)


@pytest.mark.slow
@pytest.mark.usefixtures("peak")
@pytest.mark.parametrize("name", DATA)
def test_real_instances(capsys: pytest.CaptureFixture[str], name: str, shared_data: Path) -> None:
    checked_run(capsys, name, "--data", str(shared_data / DATA[name]))


def test_every_workload_that_reads_files_has_real_ones() -> None:
    assert set(DATA) == {name for name in WORKLOADS if get_workload(name).source.read is not None}


def report_of(tmp_path: Path, *arguments: str) -> dict[str, int]:
    path = tmp_path / "report.json"
    assert main(["run", *arguments, "--hidden", "4", "--policy", "depth", "--json", str(path)]) == 0
    report: dict[str, int] = json.loads(path.read_text())
    return report


@pytest.mark.usefixtures("models")
def test_words_are_counted_on_the_data_to_learn_from(tmp_path: Path) -> None:
    data, learn_data = tmp_path / "data.txt", tmp_path / "learn.txt"
    data.write_text("an|O owl|O\n")
    learn_data.write_text("an|O owl|O " * 5 + "\n")
    # Of 2 tokens: 5 nodes each and a lookup; spelled, 4 character cells for each of 4 or 5 characters and a joining.
    rare = report_of(tmp_path, "bilstm-tagger-char", "--data", str(data))
    known = report_of(tmp_path, "bilstm-tagger-char", "--data", str(data), "--learn-data", str(learn_data))
    assert rare["nodes"] == 2 * 5 + 2 + 4 * (4 + 5)
    assert known["nodes"] == 2 * 5 + 2


@pytest.mark.usefixtures("models")
def test_types_of_tree_nodes_come_from_the_seed(tmp_path: Path) -> None:
    data = tmp_path / "trees.txt"
    data.write_text(("(2 " * 20 + "(2 w)" + " (2 w))" * 20 + "\n") * 2)
    arguments = ("treelstm-2type", "--data", str(data))
    first, again, *others = (report_of(tmp_path, *arguments, "--seed", seed)["lower_bound"] for seed in "00123")
    assert first == again
    assert set(others) != {first}


@pytest.mark.usefixtures("models")
def test_pairs_by_prefix(tmp_path: Path, models: list[FakeModel]) -> None:
    (tmp_path / "talk.en").write_text("a b\nc\n")
    (tmp_path / "talk.vi").write_text("x y z\nw\n")
    report = report_of(tmp_path, "lstm-nmt", "--data", str(tmp_path / "talk"))
    assert (report["instances"], report["nodes"]) == (2, 2 * 3 + 3 * 4)
    assert models


@pytest.mark.usefixtures("models")
def test_workload_without_data_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "random-dag", "--data", str(tmp_path / "dags"), "--hidden", "4"]) == 1
    error = capsys.readouterr().err
    assert error.endswith("for random-dag; expected no data file (hint: its instances are always generated)\n")
