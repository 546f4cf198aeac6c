"""``edbatch bench memory`` and ``edbatch bench costs``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edbatch_tvm.batching.cost_model import CostTable
from edbatch_tvm.cli import main
from edbatch_tvm.memory import PLANS


def test_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "memory.json"
    command = ["bench", "memory", "--workloads", "treelstm", "--hidden", "16", "--static-batches", "--batch-size", "4"]
    assert main([*command, "--repeat", "1", "--json", str(figures)]) == 0
    rows = {(row["form"], row["plan"]): row for row in json.loads(figures.read_text())["workloads"]}
    unfused = [rows["declared", "batch"], rows["in cells", "batch"], rows["across", "order"], rows["across", "pq"]]
    gathered = [row["bytes_gathered"] for row in unfused]
    assert gathered == sorted(gathered, reverse=True)
    assert gathered[0] > gathered[1] > gathered[2] > 0
    fused = [rows["fused", plan] for plan in PLANS]
    assert all(row["bytes_gathered"] == 0 for row in fused)
    assert [row["bytes_indexed"] for row in fused] == sorted((row["bytes_indexed"] for row in fused), reverse=True)
    assert "declared" in capsys.readouterr().out


def test_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "costs.json"
    command = ["bench", "costs", "treelstm", "--hidden", "16", "--batch-size", "4", "--minibatches", "1"]
    assert main([*command, "--width", "8", "--output", str(table)]) == 0
    assert set(CostTable.load(table).as_dict()) == {"leaf", "internal", "readout"}
    assert "fewest batches" in capsys.readouterr().out
