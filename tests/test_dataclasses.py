"""Every dataclass of the package compares without raising, and every frozen one hashes: also those that hold arrays."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edbatch_tvm
import relay_ext
import schedules


def modules() -> list[str]:
    """All modules with classes; none is imported, as that takes seconds in every process that collects tests."""
    found = []
    for package in (edbatch_tvm, relay_ext, schedules):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root.parent).with_suffix("").parts
            if path.stem not in ("__main__", "dynet_worker") and "class " in path.read_text(encoding="utf-8"):
                found.append(".".join(parts[:-1] if path.stem == "__init__" else parts))
    return found


def dataclasses_of(module: str) -> list[type]:
    try:
        members = vars(importlib.import_module(module)).values()
    except ImportError:  # what an optional package is needed for
        return []
    kinds = [one for one in members if isinstance(one, type) and dataclasses.is_dataclass(one)]
    return [kind for kind in kinds if kind.__module__ == module]


def content(text: str) -> Any:
    """Something of the type that an annotation names, different objects at every call."""
    if "Callable" in text:
        return None
    array = np.arange(3)
    if text.startswith(("dict", "Mapping")):
        return {"a": array if "ndarray" in text else 1}
    if text.startswith(("list", "Sequence")):
        return [array if "ndarray" in text else 1]
    if text.startswith("tuple"):
        return (array if "ndarray" in text else 1,)
    return array if "ndarray" in text else 1


def made(kind: type) -> Any:
    one = object.__new__(kind)
    for field in dataclasses.fields(kind):
        object.__setattr__(one, field.name, content(str(field.type)))
    return one


@pytest.mark.parametrize("module", modules())
def test_compares_and_hashes(module: str) -> None:
    for kind in dataclasses_of(module):
        one, other = made(kind), made(kind)
        assert one == one, kind
        assert isinstance(one == other, bool), kind
        if one == other and kind.__hash__ is not None:
            assert hash(one) == hash(other), kind
        if kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            assert hash(one) == hash(one), kind


def test_dataclasses_are_found() -> None:
    assert len({kind for module in modules() for kind in dataclasses_of(module)}) > 200
