"""The page of errors has every class, with a message that class really gives."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from edbatch_tvm.errors import EdbatchError

SOURCE = Path(__file__).resolve().parents[2] / "docs" / "_ext" / "errors_page.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("errors_page", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGE = load()


def test_every_class_has_an_example() -> None:
    assert set(PAGE.EXAMPLES) == {cls.__name__ for cls in PAGE.error_classes()}


@pytest.mark.parametrize("cls", PAGE.error_classes(), ids=lambda cls: cls.__name__)
def test_examples(cls: type[EdbatchError]) -> None:
    message = PAGE.example(cls)
    assert "expected " in message
    assert message in PAGE.page()
