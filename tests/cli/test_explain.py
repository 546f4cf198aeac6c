"""``edbatch explain``, of a run and with ``--memory``."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edbatch_tvm.cli import main
from edbatch_tvm.memory import PLANS


@pytest.mark.parametrize("plan", PLANS)
def test_every_operand_is_explained(plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures, page = tmp_path / "f.json", tmp_path / "p.html"
    command = ["explain", "treelstm", "--memory", "--plan", plan, "--json", str(figures), "--html", str(page)]
    assert main(command) == 0
    read = json.loads(figures.read_text())
    uses = read["uses"]
    for how, count in read["operands"].items():
        assert sum(use["how"] == how for use in uses) == count
    assert all(bool(use["why"]) == (use["how"] == "indexed") for use in uses)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(uses) + 1
    assert f"plan {read['plan']}: {read['batches']} batches" in lines[-1]
    html = page.read_text()
    assert html.count("<svg") >= 3  # the arenas, and a tree for each cell that has a layout
    for drawing in html.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + drawing.split("</svg>")[0] + "</svg>")


def test_a_run_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures, page, trace = tmp_path / "f.json", tmp_path / "p.html", tmp_path / "t.json"
    files = ["--json", str(figures), "--html", str(page), "--trace", str(trace)]
    assert main(["explain", "treelstm", "--batch-size", "2", "--policy", "depth", *files]) == 0
    read = json.loads(figures.read_text())
    assert read["workload"] == "treelstm"
    assert sum(cell["batches"] for cell in read["cells"]) == read["batches"]
    printed = capsys.readouterr().out
    assert f"{read['nodes']} nodes in {read['batches']} batches" in printed
    assert page.read_text().count("<svg") >= 4
    assert len(json.loads(trace.read_text())["traceEvents"]) > read["batches"]


def test_json_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "treegru", "--batch-size", "1", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["instances"] == 1


def test_memory_without_a_run_has_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "treelstm", "--memory", "--trace", str(tmp_path / "t.json")]) == 1
    assert "--memory with --trace, --granularity op or --training" in capsys.readouterr().err


def test_a_training_step_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    assert main(["explain", "bilstm-tagger", "--training", "--batch-size", "2", "--optimizer", "sgd", "--debug"]) == 0
    printed = capsys.readouterr().out
    for part in ("forward", "backward", "gradients of weights", "optimizer", "packing new weights", "saved for"):
        assert part in printed
