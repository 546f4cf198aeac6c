"""Where the library comes from: built once, cached, rebuilt if broken; and what happens without TVM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edbatch_tvm import find_native
from edbatch_tvm.batching import get_policy, native_kernels
from edbatch_tvm.cache_files import cache_directory, read_sealed
from edbatch_tvm.native import build, load
from tests.batching.graphs import bilstm

ROOT = Path(__file__).resolve().parents[2]


def test_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDBATCH_CACHE", str(tmp_path))
    load()
    (library,) = tmp_path.iterdir()
    assert library == build.library_path("schedule")
    written = library.stat().st_mtime_ns
    load()
    assert library.stat().st_mtime_ns == written
    assert list(tmp_path.iterdir()) == [library]


def test_a_broken_library_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDBATCH_CACHE", str(tmp_path))
    library = build.library_path("schedule")
    library.write_bytes(b"no library")
    assert len(load().run(bilstm(2), "lookahead")[2]) == 9
    assert library.stat().st_size > 1000
    assert list(tmp_path.iterdir()) == [library]


@pytest.mark.parametrize("keep", [64, 0.5, 0.99])
def test_a_part_of_a_library_is_not_loaded(keep: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDBATCH_CACHE", str(tmp_path))
    load().run(bilstm(2), "lookahead")
    library = build.library_path("schedule")
    whole = library.read_bytes()
    library.unlink()  # this process has it loaded
    library.write_bytes(whole[: int(keep if keep > 1 else keep * len(whole))])
    assert len(load().run(bilstm(2), "lookahead")[2]) == 9
    assert read_sealed(library) is not None


FIRST_USE = """
from edbatch_tvm.batching import schedule
from edbatch_tvm.graph import InstanceGraph
result, info = schedule(InstanceGraph.from_arrays([0, 1], [0, 0, 1], [0]), "lookahead")
print(len(result), info.backend)
"""


@pytest.mark.slow
def test_two_processes_build_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDBATCH_CACHE", str(tmp_path))
    both = [
        subprocess.Popen([sys.executable, "-c", FIRST_USE], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=100)[0].strip() for process in both] == ["2 native"] * 2
    (library,) = tmp_path.iterdir()
    assert read_sealed(library) is not None


def test_each_library_on_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDBATCH_CACHE", str(tmp_path))
    kernels = load()
    kernels.run(bilstm(2), "ratio")
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {"schedule"}
    kernels.heights(bilstm(2))
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {"schedule", "levels"}


def test_cache_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDBATCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_directory() == Path("/somewhere/edbatch-tvm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache" / "edbatch-tvm"


def test_a_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDBATCH_CACHE", str(tmp_path / "file" / "cache"))
    assert len(load().depth_schedule(bilstm(2))[2]) == 9


def test_the_reference_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert native_kernels.label() == "native"
    expected = get_policy("agenda")(bilstm(3))
    monkeypatch.setattr("edbatch_tvm.find_native.python_only", True)
    assert native_kernels.kernels() is None
    assert native_kernels.label() == "python (EDBATCH_BACKEND=python)"
    assert get_policy("agenda")(bilstm(3)) == expected


def test_the_environment_forces_the_reference() -> None:
    code = "from edbatch_tvm.batching import native_kernels; print(native_kernels.label())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EDBATCH_BACKEND": "python"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "python (EDBATCH_BACKEND=python)"


WITHOUT_TVM = """
import sys
sys.modules["tvm"] = None
from edbatch_tvm.batching import schedule
from edbatch_tvm.graph import InstanceGraph
result, info = schedule(InstanceGraph.from_arrays([0, 1], [0, 0, 1], [0]))
print(len(result), info.backend)
"""


def test_without_tvm() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TVM], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("2 python (")
    assert "tvm" in done.stdout


def test_batching_does_not_import_tvm() -> None:
    code = "import sys, edbatch_tvm.batching; print('tvm' in sys.modules, 'edbatch_tvm.native' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("part", list(find_native.PARTS))
def test_a_part_that_falls_back_says_why(
    part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("no linker\nsecond line")

    monkeypatch.setattr(find_native, "_found", {})
    monkeypatch.setattr(f"{find_native.PARTS[part]}.load", broken)
    for _ in range(2):
        assert find_native.find_native(part) is None
        assert find_native.backend_label(part) == "python (no linker)"
    assert [record.getMessage() for record in caplog.records] == [
        f"no native kernels to {part}, so Python does it: no linker"
    ]
