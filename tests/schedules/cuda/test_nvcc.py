"""Machine code: compiled once, kept, and errors of the compiler in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edbatch_tvm.errors import TargetError
from schedules.cuda import nvcc

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")

KERNEL = 'extern "C" __global__ void one(float* x) { x[threadIdx.x] += 1.0f; }\n'


def test_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDBATCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = nvcc.machine_code(KERNEL, "sm_80")
    assert first[:4] == b"\x7fELF"
    monkeypatch.setattr(nvcc, "_compiled", lambda *_: pytest.fail("compiled again"))
    assert nvcc.machine_code(KERNEL, "sm_80") == first
    (kept,) = (tmp_path / "edbatch-tvm" / "cuda").iterdir()
    monkeypatch.undo()
    monkeypatch.setenv("EDBATCH_CACHE", str(tmp_path / "edbatch-tvm"))
    *content, last = kept.read_bytes()
    kept.write_bytes(bytes([*content, last ^ 1]))
    assert nvcc.machine_code(KERNEL, "sm_80") == first  # compiled again, and kept
    assert kept.read_bytes()[:4] == b"\x7fELF"
    monkeypatch.setattr(nvcc, "_compiled", lambda *_: pytest.fail("compiled again"))
    assert nvcc.machine_code(KERNEL, "sm_80") == first


def test_source_that_does_not_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDBATCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(TargetError, match=r"nvcc failed for sm_80: .*error") as caught:
        nvcc.machine_code("__global__ void one() { nothing; }\n", "sm_80")
    assert "\n" not in str(caught.value)


def test_tvm_asks_for_the_architecture_of_the_current_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tvm_ffi
    from tvm.target import Target

    monkeypatch.delenv("EDBATCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with Target({"kind": "cuda", "arch": "sm_80"}, host="llvm"):
        code = tvm_ffi.get_global_func("tvm_callback_cuda_compile")(KERNEL)
    assert bytes(code) == nvcc.machine_code(KERNEL, "sm_80")
