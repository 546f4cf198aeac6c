"""The site builds without a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_site_builds(tmp_path: Path) -> None:
    for package in ("sphinx", "sphinx_gallery", "myst_parser", "furo"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-b", "html", "docs", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for page in ("index", "generated/errors", "policies/fsm", "api/edbatch_tvm", "tutorials/01_first_model"):
        assert (tmp_path / f"{page}.html").stat().st_size > 4000
