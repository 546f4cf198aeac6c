"""``edbatch bench``."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from edbatch_tvm.cli import main

SMALL = [
    "bench",
    "batching",
    "--batch-size",
    "2",
    "--minibatches",
    "2",
    "--learn-minibatches",
    "3",
    "--widths",
    "2",
    "4",
]


def test_generated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    assert main([*SMALL, "--workloads", "treelstm", "lattice-lstm", "--seeds", "2", "--json", str(path)]) == 0
    assert "batches over the lower bound" in capsys.readouterr().out
    figures = json.loads(path.read_text())
    assert figures["sources"] == {"treelstm": "generator", "lattice-lstm": "generator"}
    assert len(figures["rows"]) == 2 * 8
    assert all(row["ratio"] >= 1 for row in figures["rows"])


def test_data_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sst").mkdir()
    (tmp_path / "sst" / "train.txt").write_text("(3 (2 a) (4 (1 b) (0 c)))\n(1 (0 d) (1 e))\n" * 5)
    options = [*SMALL, "--workloads", "treelstm", "--data-root", str(tmp_path)]
    assert main([*options, "--json", "-"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["sources"] == {"treelstm": str(tmp_path / "sst" / "train.txt")}
    assert main([*options, "--learn-minibatches", "5"]) == 1
    assert "5 minibatches in" in capsys.readouterr().err


def test_plot_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main([*SMALL, "--plot", str(tmp_path / "plot.png")]) == 1
    assert "--plot without matplotlib; expected it installed" in capsys.readouterr().err
