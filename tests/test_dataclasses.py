"""Every dataclass of the package compares without raising, and every frozen one hashes: also those that hold arrays."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from typing import Any

import numpy as np
import pytest

import edbatch_tvm
import relay_ext
import schedules


def found() -> list[type]:
    classes: dict[str, type] = {}
    for package in (edbatch_tvm, relay_ext, schedules):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if module.name.endswith("__main__") or "dynet_worker" in module.name:
                continue
            try:
                members = vars(importlib.import_module(module.name))
            except ImportError:  # what an optional package is needed for
                continue
            for member in members.values():
                if isinstance(member, type) and dataclasses.is_dataclass(member) and member.__module__ == module.name:
                    classes[f"{module.name}.{member.__name__}"] = member
    return [classes[name] for name in sorted(classes)]


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


@pytest.mark.parametrize("kind", found(), ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_compares_and_hashes(kind: type) -> None:
    one, other = made(kind), made(kind)
    assert one == one
    assert isinstance(one == other, bool)
    if one == other and kind.__hash__ is not None:
        assert hash(one) == hash(other)
    if kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        assert hash(one) == hash(one)
