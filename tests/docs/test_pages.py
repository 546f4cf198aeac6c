"""Pages of documentation: lines of prose fit the limit of the code, and the modules they name are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("benchmarks", "docs", "edbatch_tvm", "relay_ext", "schedules", "tests", "tutorials")
GENERATED = ("docs/_build", "docs/generated", "docs/tutorials")
"""Folders that `make docs` writes."""


def is_source(path: Path) -> bool:
    """Whether `make docs` does not write this file."""
    return not path.relative_to(ROOT).as_posix().startswith(tuple(f"{folder}/" for folder in GENERATED))


PATTERNS = ("*.md", "docs/**/*.md", "edbatch_tvm/**/*.md")
PAGES = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern) if is_source(path))
MODULES = {path.name for top in SOURCES for path in (ROOT / top).rglob("*.py") if is_source(path)}
LIMIT = 120
MODULES_OF_OTHERS = {"setup.py", "dynet.py", "dynet_config.py", "dynet_viz.py"}
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


def test_generated_folders_are_ignored_by_git_and_not_read() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for folder in GENERATED:
        assert f"{folder}/" in ignored
        assert not is_source(ROOT / folder / "html" / "page.md")
    assert is_source(ROOT / "docs" / "generated.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_fit(page: Path) -> None:
    assert [(number, len(line)) for number, line in prose(page) if len(line) > LIMIT] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_that_are_named_are_there(page: Path) -> None:
    named = re.findall(r"\w+\.py\b", page.read_text(encoding="utf-8"))
    assert sorted({name for name in named if name not in MODULES | MODULES_OF_OTHERS and "NAME" not in name}) == []
