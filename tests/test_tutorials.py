"""Every tutorial runs as it stands, asserts what it claims, and draws its figures."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from time import perf_counter

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "tutorials"
SCRIPTS = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
SECONDS = 30


def test_numbers_have_no_gaps() -> None:
    assert [int(script.name[:2]) for script in SCRIPTS] == list(range(1, len(SCRIPTS) + 1))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_tutorial(script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes: list[int] = []

    def show() -> None:
        axes.append(len(pyplot.gcf().axes))
        pyplot.close("all")

    monkeypatch.setattr(pyplot, "show", show)
    monkeypatch.setattr(sys, "argv", [str(script)])
    begin = perf_counter()
    runpy.run_path(str(script), run_name="__main__")
    assert perf_counter() - begin < SECONDS
    assert axes
    assert all(axes)
    assert capsys.readouterr().out
