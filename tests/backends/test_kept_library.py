"""Emulated kernels for GPUs are kept on disk: found by their code, never loaded where anything is wrong with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.backends import gpu
from edbatch_tvm.runtime import compilation_cache
from edbatch_tvm.runtime.compilation_cache import LIBRARY_SUFFIX
from schedules.cuda.kernels import Occupancy

ROOT = Path(__file__).resolve().parents[2]


def cells(factor: float) -> tvm.IRModule:
    """A stage with packed weights, and a cell of the general path."""

    @I.ir_module
    class Module:
        @R.function
        def node(h: R.Tensor((8,), "float32"), W: R.Tensor((8, 8), "float32")):
            R.func_attr({"num_input": 1})
            y = R.multiply(R.tanh(R.matmul(h, W)), R.const(factor, "float32"))
            return y

        @R.function
        def ends(h: R.Tensor((8,), "float32")):
            R.func_attr({"num_input": 1})
            y = R.nn.softmax(R.cumsum(h, axis=0))
            return y

    return Module


Cells = cells(2.0)
W = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(compilation_cache.FOLDER_VARIABLE, str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names of the functions of each module that is compiled."""
    found: list[list[str]] = []
    build = gpu.build_kernels

    def counted(module: tvm.IRModule, target: Any) -> Any:
        found.append([var.name_hint for var in module.functions])
        return build(module, target)

    counted.__module__, counted.__qualname__ = build.__module__, build.__qualname__
    monkeypatch.setattr(gpu, "build_kernels", counted)
    return found


def check(mod: tvm.IRModule = Cells, factor: float = 2.0, tolerance: float = 1e-5, **options: Any) -> None:
    model = eb.compile(mod, {"W": W}, target="cuda-emulated", **options)
    x = np.linspace(-1, 1, 8, dtype=np.float32)
    builder = model.builder()
    node = builder.call("node", x)
    instance = builder.finish([node, builder.call("ends", node)])
    node, ends = model([instance, instance])[1]
    wanted = np.tanh(x.astype(float) @ W) * factor
    np.testing.assert_allclose(node, wanted, rtol=tolerance, atol=tolerance)
    power = np.exp(np.cumsum(wanted))
    np.testing.assert_allclose(ends, power / power.sum(), rtol=10 * tolerance, atol=tolerance)


def libraries(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{LIBRARY_SUFFIX}"))


def test_compiled_once(folder: Path, built: list[list[str]]) -> None:
    check()
    assert len(built) == len(libraries(folder)) == 2
    check()
    assert len(built) == 2


MISSES: dict[str, dict[str, Any]] = {
    "mod": {"mod": cells(3.0), "factor": 3.0},
    "launch": {"launch": "batch"},
    "dtype": {"dtype": "bfloat16", "tolerance": 0.05},
    "database": {"database": Occupancy(fill=1)},
    "granularity": {"granularity": "op"},
}
"""Options that change the code; docs/cuda.md says which do not."""


def test_options_that_change_the_code(folder: Path, built: list[list[str]]) -> None:
    check()
    for option, changed in MISSES.items():
        before = len(built)
        check(**changed)
        assert len(built) > before, option
    known = len(built)
    for changed in ({"policy": "depth"}, {"plan": "pq"}, *MISSES.values()):
        check(**changed)
    assert len(built) == known


@pytest.mark.parametrize("what", ["version", "sources", "cpu", "config"])
def test_what_else_is_in_the_key(
    what: str, folder: Path, built: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    check()
    patches = {"version": "metadata.version", "sources": "sources_digest", "cpu": "cpu_features"}
    if what in patches:
        monkeypatch.setattr(f"edbatch_tvm.runtime.compilation_cache.{patches[what]}", lambda *_: "another")
    with tvm.transform.PassContext(config={"tirx.disable_vectorize": True} if what == "config" else {}):
        check()
    assert len(built) == 4


def test_damaged_files_are_compiled_again(folder: Path, built: list[list[str]]) -> None:
    check()
    one, other = libraries(folder)
    whole = one.read_bytes(), other.read_bytes()
    for damaged in (b"", whole[0][:-1], whole[0][: len(whole[0]) // 2], whole[1]):
        known = len(built)
        one.write_bytes(damaged)
        check()
        assert len(built) == known + 1
        assert compilation_cache.find_file(one.name) is not None
    one.chmod(0o666)
    check()
    assert len(built) == known + 2


def test_watched_passes_run(folder: Path, built: list[list[str]]) -> None:
    check()
    with tvm.transform.PassContext(instruments=[tvm.ir.instrument.PassTimingInstrument()]):
        check()
    assert len(built) == 4


def test_nothing_is_kept(tmp_path: Path, built: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compilation_cache.FOLDER_VARIABLE, "none")
    check()
    check()
    assert len(built) == 4


@pytest.mark.slow
def test_two_processes_at_once(folder: Path) -> None:
    code = "from tests.backends.test_kept_library import check; check()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert len(libraries(folder)) == 2
    assert all(compilation_cache.find_file(path.name) is not None for path in libraries(folder))
