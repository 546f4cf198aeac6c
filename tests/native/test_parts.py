"""Every native part is there: without one, tests that compare it with Python would compare Python with itself."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from edbatch_tvm import find_native
from edbatch_tvm.c_extension import find_compiler

IN_C = ("build instances", "read data files", "run minibatches in one call")
"""Parts that take a C compiler and ``Python.h``; TVM compiles the others."""

HAS_C = find_compiler() is not None and (Path(sysconfig.get_path("include")) / "Python.h").exists()

needs_c = pytest.mark.skipif(not HAS_C, reason="no C compiler, or no Python.h")


@pytest.mark.skipif(find_native.python_only, reason=f"{find_native.VARIABLE}=python")
@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=needs_c) if part in IN_C else part for part in find_native.PARTS]
)
def test_part(part: str) -> None:
    assert find_native.backend_label(part) == "native"
    assert find_native.find_native(part) is not None


@needs_c
def test_recording() -> None:
    pytest.importorskip("torch")
    from edbatch_tvm.recording.core import VARIABLE, core

    assert core.reason in ("", f"{VARIABLE}=python")
