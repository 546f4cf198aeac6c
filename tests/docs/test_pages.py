"""Pages of documentation: lines of prose fit the limit of the code, and the modules they name are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("edbatch_tvm/**/*.md")})
LIMIT = 120
OF_OTHERS = {"setup.py", "dynet.py", "dynet_config.py", "dynet_viz.py"}
"""Files of DyNet, which a page says how to build."""


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """Lines of a page with their numbers, without tables and code."""
    code = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = line.lstrip().startswith("```")
        code ^= fence
        if not (code or fence or line.startswith(("|", "    "))):
            yield number, line


def test_there_are_pages() -> None:
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "architecture.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_fit(page: Path) -> None:
    assert [(number, len(line)) for number, line in prose(page) if len(line) > LIMIT] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_that_are_named_are_there(page: Path) -> None:
    known = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts} | OF_OTHERS
    named = re.findall(r"\w+\.py\b", page.read_text(encoding="utf-8"))
    assert sorted({name for name in named if name not in known and "NAME" not in name}) == []
