"""``edbatch explain WORKLOAD --memory``."""

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


def test_a_subject_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "treelstm"]) == 1
    assert "edbatch explain without a subject; expected --memory" in capsys.readouterr().err
