"""Compiled cells kept on disk: found by what decides the code, never loaded where anything is wrong with them."""

from __future__ import annotations

import hashlib
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm import cache_files
from edbatch_tvm.backends import CompileOptions, find_backend
from edbatch_tvm.backends.cpu import CpuBackend
from edbatch_tvm.backends.cpu_records import records_digest
from edbatch_tvm.runtime import Model, compilation_cache
from edbatch_tvm.runtime.compilation_cache import KeptCells
from schedules.device_names import device_name

ROOT = Path(__file__).resolve().parents[2]
W = np.eye(16, dtype=np.float32) * 0.5


def cells(constant: float) -> tvm.IRModule:
    """A table, a constant, an operand of any number of rows, and a size that a weight says."""

    @I.ir_module
    class Module:
        @R.function
        def word(i: R.Tensor((), "int32"), table: R.Tensor((5, 16), "float32")):
            R.func_attr({"num_input": 1})
            h = R.add(R.take(table, i, axis=0), R.const([constant] * 16, "float32"))
            return h

        @R.function
        def node(h: R.Tensor(("k", 16), "float32"), W: R.Tensor((16, "n"), "float32")):
            R.func_attr({"num_input": 1})
            y = R.tanh(R.matmul(R.sum(h, axis=0), W))
            return y

    return Module


Cells = cells(0.25)


def weights(scale: float = 1.0) -> dict[str, np.ndarray]:
    return {"table": np.arange(80, dtype=np.float32).reshape(5, 16) / 80 * scale, "W": W * scale}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(compilation_cache.FOLDER_VARIABLE, str(tmp_path / "kept"))
    return tmp_path / "kept"


def check(model: Model, scale: float = 1.0, constant: float = 0.25, error: float = 1e-5) -> None:
    builder = model.builder()
    instance = builder.finish(builder.call("node", [builder.call("word", i=3), builder.call("word", i=1)]))
    given = weights(scale)
    wanted = np.tanh((given["table"][3] + given["table"][1] + 2 * constant) @ given["W"])
    np.testing.assert_allclose(model([instance])[0], wanted, rtol=error, atol=1e-6)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A list that grows by one with each compilation."""
    found: list[Any] = []

    def count(name: str) -> None:
        method = getattr(CpuBackend, name)

        def counted(self: CpuBackend, module: Any, *arguments: Any) -> Any:
            result = method(self, module, *arguments)
            if result is not None:
                found.append(module)
            return result

        monkeypatch.setattr(CpuBackend, name, counted)

    count("build")
    count("compile_cells")
    return found


def files(folder: Path) -> list[Path]:
    """Of whole models."""
    return sorted(folder.glob("*.cells"))


def test_compiled_once(folder: Path, compilations: list[Any], tmp_path: Path) -> None:
    first = eb.compile(Cells, weights())
    (file,) = files(folder)
    second = eb.compile(Cells, weights(2.0))
    assert len(compilations) == 1
    assert [file] == files(folder)
    assert second.signature == first.signature
    assert second.signature["word"].attributes[0].bound == 5
    assert (second.paths, second.kernel_names) == (first.paths, first.kernel_names)
    check(first)
    check(second, 2.0)
    second.refresh(weights(3.0))
    check(second, 3.0)
    second.save(tmp_path / "model.edb")
    check(eb.load(tmp_path / "model.edb"), 3.0)


MISSES: dict[str, list[dict[str, Any]]] = {
    "mod": [{"mod": cells(0.5)}],
    "sizes": [{"sizes": {"n": 16}, "params": None}],
    "target": [{"target": {"kind": "llvm", "mcpu": "x86-64-v2"}}],
    "granularity": [{"granularity": one} for one in ("op", "group", "group-declared")],
    "fused": [{"granularity": "op", "fused": False}],
    "fast_math": [{"fast_math": False}],
    "storage": [{"storage": "bfloat16"}, {"storage": "float16"}],
}
"""Options that change the code, with calls that change each."""

HITS: dict[str, list[dict[str, Any]]] = {
    "params": [{"params": weights(0.5)}],
    "policy": [{"policy": "depth"}],
    "plan": [{"plan": "pq"}],
    "launch": [{"launch": "batch"}],  # of GPUs
    "equal_nodes": [{"equal_nodes": True}],
}
"""Options that do not."""

ELSEWHERE = {"dump_dir", "database", "dtype", "memory", "product_tables", "training"}
"""Options with tests of their own; cells for training have a backward pass besides."""


def test_every_option_is_tried() -> None:
    options = inspect.signature(eb.compile).parameters
    assert set(options) == MISSES.keys() | HITS.keys() | ELSEWHERE


def _error(changed: dict[str, Any]) -> float:
    return 0.01 if "storage" in changed else 1e-5


def test_options_that_change_the_code(folder: Path, compilations: list[Any]) -> None:
    usual = {"mod": Cells, "params": weights()}
    check(eb.compile(**usual))
    for option, calls in HITS.items():
        for changed in calls:
            eb.compile(**usual | changed)
            assert len(files(folder)) == 1, option
    known = 1
    for option, calls in MISSES.items():
        for changed in calls:
            call = usual | changed
            if call["params"] is None:
                call["params"] = weights()
            check(eb.compile(**call), constant=0.5 if option == "mod" else 0.25, error=_error(changed))
            count = len(files(folder))
            # Groups may be the ops that they are made of; a size that is given is the one that the weights say.
            same = option == "sizes" or str(changed.get("granularity")).startswith("group")
            assert count in ({known, known + 1} if same else {known + 1}), option
            known = count
    before = len(compilations)
    for calls in MISSES.values():
        for changed in calls:
            call = usual | changed
            again = eb.compile(**call | {"params": weights()})
            check(again, constant=0.5 if "mod" in changed else 0.25, error=_error(changed))
    assert len(compilations) == before


def test_other_sizes_are_other_cells(folder: Path) -> None:
    key = keys()
    assert key() == key()
    assert key({"W": np.zeros((16, 8), np.float32)}) != key()


def keys() -> Callable[..., str | None]:
    """The key of the cells with these weights."""
    from edbatch_tvm.compiler.lower import lower_cells

    def key(changed: dict[str, np.ndarray] | None = None, **options: Any) -> str | None:
        backend = find_backend(options.pop("target", "llvm"))
        given = weights() | (changed or {})
        return lower_cells(Cells, given, backend, CompileOptions(**options), reuse=True).key

    return key


def test_what_else_is_in_the_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = keys()
    before = key()
    contexts: dict[str, Any] = {
        "config": {"config": {"tirx.disable_vectorize": True}},
        "disabled": {"disabled_pass": ["tirx.UnrollLoop"]},
        "level": {"opt_level": 1},
    }
    patches = {"version": "metadata.version", "sources": "sources_digest", "cpu": "cpu_features"}
    for what in (*contexts, *patches):
        with monkeypatch.context() as patch, tvm.transform.PassContext(**contexts.get(what, {})):
            if what in patches:
                patch.setattr(f"edbatch_tvm.runtime.compilation_cache.{patches[what]}", lambda *_: "another")
            assert key() != before, what
    assert key() == before


def test_records_are_in_the_key(folder: Path, tmp_path: Path) -> None:
    target = find_backend("llvm").target  # type: ignore[attr-defined]
    assert records_digest("none", target, 2) == ""
    records = tmp_path / "records" / device_name(target, 2)
    records.mkdir(parents=True)
    digests = {records_digest(tmp_path / "records", target, 2)}
    for content in ("one", "two"):
        (records / "database_tuning_record.json").write_text(content)
        digests.add(records_digest(tmp_path / "records", target, 2))
        (records / "trials_tuning_record.json").write_text(content)
        digests.add(records_digest(tmp_path / "records", target, 2))
    assert len(digests) == 3
    assert keys()(database="none") is not None


def test_seen_passes_and_dumps_run(folder: Path, compilations: list[Any], tmp_path: Path) -> None:
    eb.compile(Cells, weights())
    eb.compile(Cells, weights(), dump_dir=tmp_path / "dump")
    assert len(compilations) == 2
    assert len(list((tmp_path / "dump").iterdir())) > 8
    with tvm.transform.PassContext(instruments=[tvm.ir.instrument.PassTimingInstrument()]):
        eb.compile(Cells, weights())
    assert len(compilations) == 3


def test_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compilations: list[Any]) -> None:
    monkeypatch.setenv("EDBATCH_CACHE", str(tmp_path))
    monkeypatch.setenv(compilation_cache.FOLDER_VARIABLE, "none")
    for _ in range(2):
        check(eb.compile(Cells, weights()))
    assert len(compilations) == 2
    assert not (tmp_path / "models").exists()
    monkeypatch.delenv(compilation_cache.FOLDER_VARIABLE)
    assert compilation_cache.folder() == tmp_path / "models"


def damaged(content: bytes) -> list[bytes]:
    """Files that are not what was written."""
    header = content.index(b'"lengths"')
    flipped = [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in (0, header, len(content) // 2, -1)]
    other = content[:-32].replace(b'"key": "', b'"key": "0', 1)
    foreign = other + hashlib.sha256(other).digest()
    return [b"", content[:40], content[:-1], content[: len(content) // 2], content + b"\0", *flipped[:3], foreign]


def test_damaged_and_foreign_files(folder: Path, compilations: list[Any]) -> None:
    eb.compile(Cells, weights())
    (file,) = files(folder)
    whole = file.read_bytes()
    for content in damaged(whole):
        file.write_bytes(content)
        assert compilation_cache.find(file.stem) is None
    check(eb.compile(Cells, weights()))
    assert len(compilations) == 2
    assert cache_files.read_sealed(file) is not None
    eb.compile(Cells, weights())
    assert len(compilations) == 2


def test_a_library_that_does_not_load(folder: Path, compilations: list[Any]) -> None:
    eb.compile(Cells, weights())
    (file,) = files(folder)
    found = compilation_cache.find(file.stem)
    assert found is not None
    compilation_cache.keep(file.stem, KeptCells(b"no library", found.attributes, found.bounds, found.constants))
    check(eb.compile(Cells, weights()))
    assert len(compilations) == 2
    eb.compile(Cells, weights())
    assert len(compilations) == 2


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners of files here")
def test_what_others_can_write_is_not_loaded(folder: Path) -> None:
    entry = KeptCells(b"code", {}, {}, {})
    compilation_cache.keep("key", entry)
    assert vars(compilation_cache.find("key")) == vars(entry)
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "key.cells").chmod(0o666)
    assert compilation_cache.find("key") is None
    (folder / "key.cells").chmod(0o644)
    folder.chmod(0o777)
    assert compilation_cache.find("key") is None
    folder.chmod(0o1777)
    assert vars(compilation_cache.find("key")) == vars(entry)


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(compilation_cache.FOLDER_VARIABLE, str(tmp_path / "file" / "kept"))
    check(eb.compile(Cells, weights()))


def test_the_least_used_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compilation_cache.SIZE_VARIABLE, "1")
    entry = KeptCells(bytes(400_000), {"f": {"a": 1}}, {"cell": [None, 3]}, {"c": np.ones((2, 3), np.float32)})
    for name, used in (("a", 100), ("b", 200)):
        compilation_cache.keep(name, entry)
        os.utime(folder / f"{name}.cells", (used, used))
    assert compilation_cache.find("a") is not None  # now it was used after b
    compilation_cache.keep("c", entry)
    assert {path.stem for path in folder.iterdir()} == {"a", "c"}
    found = compilation_cache.find("c")
    assert found is not None
    assert (found.library, found.attributes, found.bounds) == (entry.library, entry.attributes, entry.bounds)
    np.testing.assert_array_equal(found.constants["c"], entry.constants["c"])
    abandoned = folder / ".a.cells.scratch"
    abandoned.write_bytes(bytes(10))
    os.utime(abandoned, (100, 100))
    compilation_cache.keep("d", KeptCells(bytes(2_000_000), {}, {}, {}))
    assert {path.name for path in folder.iterdir()} == {"d.cells"}


def test_the_folder_is_not_looked_through_for_every_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compilation_cache.SIZE_VARIABLE, "1")
    looked = []
    shrink = compilation_cache._shrink
    monkeypatch.setattr(compilation_cache, "_shrink", lambda *given: looked.append(shrink(*given)))
    for number in range(300):
        compilation_cache.keep_file(f"{number}.cell", bytes(5_000))
    assert 2 < len(looked) < 150
    # Full is full, within the part that is written before it is looked at again.
    assert sum(path.stat().st_size for path in folder.iterdir()) <= (1 << 20) * (1 + 1 / 64) + 5_100


def test_many_at_once(folder: Path) -> None:
    entries = {number: KeptCells(bytes([number]) * 50_000, {}, {}, {}) for number in range(8)}

    def work(number: int) -> bool:
        for _ in range(10):
            compilation_cache.keep("key", entries[number])
            found = compilation_cache.find("key")
            if found is not None and found.library not in {entry.library for entry in entries.values()}:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, entries))
    assert [path.name for path in folder.iterdir()] == ["key.cells"]


@pytest.mark.slow
def test_another_process_finds_it(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "edbatch_tvm.peers.first_result", "childsum-tree", "16"]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        (file,) = files(folder)
        if seed == "1":
            written = file.read_bytes(), file.stat().st_ino
    assert (file.read_bytes(), file.stat().st_ino) == written
