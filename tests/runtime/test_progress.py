"""The bar of long compilations: on a terminal, after a while, and nowhere else."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable

import pytest

import edbatch_tvm as eb
from edbatch_tvm.compiler import progress
from edbatch_tvm.compiler.progress import Progress
from edbatch_tvm.models import get_workload
from edbatch_tvm.runtime import compilation_cache


class Terminal(io.StringIO):
    """Takes what a terminal would."""

    def __init__(self, terminal: bool = True) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


Run = Callable[[], None]


def steps() -> None:
    """Two of three steps, the second one long: the bar appears while it runs."""
    shown = threading.Event()
    with Progress() as bar:
        bar.expect(2)
        bar("first")
        bar("second")
        shown.wait(0.2)


def compiled() -> None:
    """A compilation, most of which happens outside Python; of a size that no other test compiles."""
    workload = get_workload("treegru")
    eb.compile(workload.cells(19), workload.weights(19))


@pytest.mark.parametrize("run", [steps, compiled])
def test_shown_on_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "PATIENCE", 0.1 if run is steps else 0.5)
    monkeypatch.setenv(compilation_cache.FOLDER_VARIABLE, "none")
    run()
    assert "compiling" in terminal.getvalue()
    if run is steps:
        assert "2/3" in terminal.getvalue()
        assert "second" in terminal.getvalue()


def test_one_inside_another_has_no_bar_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "PATIENCE", 0.1)
    shown = threading.Event()
    with Progress() as outer:
        outer("outer")
        with Progress() as inner:
            inner.expect(3)
            inner("inner")
            shown.wait(0.2)
    assert "2/4" in terminal.getvalue()
    assert "inner" in terminal.getvalue()
    with Progress():
        shown.wait(0.2)
    assert terminal.getvalue().count("0/1") == 1  # the next one begins anew


@pytest.mark.parametrize("terminal", [True, False])
def test_silent_if_it_is_short_or_nobody_looks(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "PATIENCE", 30.0 if terminal else 0.0)
    steps()
    assert screen.getvalue().strip() == ""
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
