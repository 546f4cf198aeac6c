"""Every tutorial runs as it stands, asserts what it claims, and draws its figures."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "tutorials"
SCRIPTS = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
LONG = {"06_tune", "07_pytorch_as_it_is", "10_train"}


def test_numbers_have_no_gaps() -> None:
    assert [int(script.name[:2]) for script in SCRIPTS] == list(range(1, len(SCRIPTS) + 1))


@pytest.mark.parametrize(
    "script",
    [pytest.param(one, marks=[pytest.mark.slow] * (one.stem in LONG)) for one in SCRIPTS],
    ids=[one.stem for one in SCRIPTS],
)
def test_tutorial(script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    if "import torch" in script.read_text():
        pytest.importorskip("torch")
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "show", lambda: None)  # the backend is for files; a warning is an error
    monkeypatch.setattr(sys, "argv", [str(script)])
    runpy.run_path(str(script), run_name="__main__")
    axes = [len(pyplot.figure(number).axes) for number in pyplot.get_fignums()]
    pyplot.close("all")
    assert axes
    assert all(axes)
    assert capsys.readouterr().out
