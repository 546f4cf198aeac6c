"""Backends are found by any form of a target, and anything else is refused."""

from __future__ import annotations

from typing import Any

import pytest
from tvm.target import Target

from edbatch_tvm.backends import Backend, find_backend
from edbatch_tvm.errors import TargetError


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("llvm", "cpu"),
        ({"kind": "llvm", "mcpu": "haswell"}, "cpu"),
        ('{"kind": "llvm", "mcpu": "haswell"}', "cpu"),
        (Target({"kind": "llvm"}), "cpu"),
        ({"kind": "cuda", "arch": "sm_80"}, "cuda"),
        (Target({"kind": "cuda", "arch": "sm_80"}), "cuda"),
        ("cuda-emulated", "cuda-emulated"),
        ("numpy", "numpy"),
    ],
)
def test_forms_of_a_target(target: Any, name: str) -> None:
    backend = find_backend(target)
    assert isinstance(backend, Backend)
    assert backend.name == name
    assert backend.given is target or isinstance(backend.given, Target)


@pytest.mark.parametrize(
    "target", ["", "vax", "c", "{", 5, None, {}, {"kind": None}, {"kind": ["llvm"]}, {"kind": "c"}, ["llvm"], b"llvm"]
)
def test_what_is_no_target(target: Any) -> None:
    with pytest.raises(TargetError, match="target"):
        find_backend(target)
