"""The Python examples of the README run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edbatch_tvm.cli.main import parser
from edbatch_tvm.models import WORKLOADS

ROOT = Path(__file__).resolve().parents[1]


BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
PRINTED = ("torch.Size([64]) 4\n", "(64,) 3\n")
"""What each example prints first."""


def test_examples_are_known() -> None:
    assert len(BLOCKS) == len(PRINTED)


@pytest.mark.parametrize(("code", "printed"), [*zip(BLOCKS, PRINTED, strict=False)], ids=["torch", "tvmscript"])
def test_example(code: str, printed: str, tmp_path: Path) -> None:
    if "import torch" in code:
        pytest.importorskip("torch")
    script = tmp_path / "example.py"
    script.write_text(code)
    run = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(printed)


def test_commands_parse() -> None:
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    commands = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    edbatch = [command[1:] for command in commands if command[:1] == ["edbatch"]]
    assert len(edbatch) >= 3
    for arguments in edbatch:
        assert callable(parser().parse_args(arguments).function)  # a wrong workload does not parse


def test_workloads_are_listed() -> None:
    for page in ("README.md", "docs/workloads.md"):
        named = set(re.findall(r"`([a-z0-9-]+)`", (ROOT / page).read_text()))
        assert set(WORKLOADS) <= named
