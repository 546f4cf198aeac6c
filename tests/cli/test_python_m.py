"""``python -m edbatch_tvm`` in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edbatch_tvm.models import WORKLOADS


def module(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edbatch_tvm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("verb", ["run", "learn"])
def test_help_of_a_verb(verb: str) -> None:
    done = module(verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    text = re.sub(r"-\s+", "-", done.stdout)  # lines are broken at hyphens too
    assert set(WORKLOADS) <= set(text.replace(",", " ").split())


def test_errors_leave_with_their_code(tmp_path: Path) -> None:
    done = module("run", "treelstm", "--data", str(tmp_path / "none.txt"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"edbatch: error: no data file {tmp_path / 'none.txt'}; expected an existing file\n"


@pytest.mark.slow
def test_run_from_end_to_end() -> None:
    arguments = ("--hidden", "8", "--batch-size", "4", "--minibatches", "1", "--check", "--json", "-")
    done = module("run", "treegru", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["workload"], report["instances"]) == ("treegru", 4)
    assert 0 < report["max_relative_error"] <= 1e-5
