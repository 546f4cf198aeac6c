"""The benchmark scripts run, on the smallest inputs they take; what they measure is nobody's assertion."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        pytest.param(
            "memory_plans",
            "treelstm --hidden 16 --batch-size 4 --rounds 1",
            "treelstm, hidden 16",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "autobatch", "--hidden 8 --batch-size 6 --rounds 1 --calls 100", "recording a call", marks=pytest.mark.slow
        ),
        pytest.param(
            "large_minibatch", "--nodes 5000 --hidden 8 --json {json}", "treelstm, hidden 8: ", marks=pytest.mark.slow
        ),
        pytest.param(
            "soak", "--minibatches 600 --hidden 8 --allow 40", "growth after 120 minibatches", marks=pytest.mark.slow
        ),
        pytest.param(
            "kernel_rates",
            "childsum-tree --hidden 8 --batch-size 4 --repeat 1",
            "| childsum-tree | generated |",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "two_threads",
            "treelstm --hidden 8 --batch-size 4 --seconds 0",
            "| treelstm | 8 |",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "encoder", "--hidden 8 --layers 1 --longest 5 --count 4 --rounds 1", "first call", marks=pytest.mark.slow
        ),
        pytest.param("compile_times", "--parts equal", "500 equal cells", marks=pytest.mark.slow),
        ("operator_speed", "--hidden 8 --rows 16 --children 2 --only softmax attention --repeat 1", "attention over 2"),
        pytest.param(
            "cuda",
            "--emulate --workloads treelstm --dtypes float32 --json {json}",
            "1 rows, 0 wrong, 0 not run",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_script(script: str, arguments: str, expected: str, tmp_path: Path) -> None:
    if script in ("autobatch", "cuda", "encoder", "operator_speed"):
        pytest.importorskip("torch")
    given = arguments.format(json=tmp_path / "figures.json").split()
    command = [sys.executable, "-m", f"benchmarks.{script}", *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


def test_a_batch_below_the_clock() -> None:
    """What took no longer than an empty run has no finite ratio, and no ZeroDivisionError."""
    pytest.importorskip("torch")
    from benchmarks import operator_speed

    assert " inf " in operator_speed.row_text("softmax", 8, 0.0, 1e-5, "stage")
    assert " 2.00 " in operator_speed.row_text("softmax", 8, 1e-5, 2e-5, "stage")
