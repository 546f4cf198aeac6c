"""Golden text: compare with a file under ``tests/golden``, or write it with ``pytest --update-golden``."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "golden"


class Golden:
    """Compares text with the golden file of a name."""

    def __init__(self, update: bool) -> None:
        self.update = update

    def __call__(self, name: str, text: str) -> None:
        """Assert that `text` is what the file `name` holds."""
        path = FOLDER / name
        text = text.rstrip("\n") + "\n"
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if not path.exists():
            pytest.fail(f"no golden file {path}; run pytest --update-golden and look at it")
        assert text == path.read_text(encoding="utf-8"), "run pytest --update-golden if the change is meant"
