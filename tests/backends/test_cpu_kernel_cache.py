"""Kernels for a CPU are compiled one by one: a model that gets one more cell costs that cell alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

import edbatch_tvm as eb
from edbatch_tvm.backends import cpu_cells, cpu_kernel_cache
from edbatch_tvm.compiler.lower import lower_cells
from edbatch_tvm.runtime import compilation_cache
from relay_ext.split_program import KernelCode, split_program
from schedules.cpu.work_sharing import sharing_ir

H = 8
rng = np.random.default_rng(0)


@I.ir_module
class Two:
    @R.function
    def leaf(word: R.Tensor((), "int32"), table: R.Tensor((5, 8), "float32")):
        R.func_attr({"num_input": 1})
        h = R.take(table, word, axis=0)
        return h

    @R.function
    def node(left: R.Tensor((8,), "float32"), right: R.Tensor((8,), "float32"), W: R.Tensor((8, 8), "float32")):
        R.func_attr({"num_input": 2})
        h = R.tanh(R.matmul(R.add(left, right), W))
        return h


@I.ir_module
class Three:
    """Those of Two under other names and in another order, and one more."""

    @R.function
    def fresh(state: R.Tensor((8,), "float32"), V: R.Tensor((8, 8), "float32")):
        R.func_attr({"num_input": 1})
        y = R.multiply(R.tanh(R.matmul(state, V)), R.const(2.0, "float32"))
        return y

    @R.function
    def join(one: R.Tensor((8,), "float32"), other: R.Tensor((8,), "float32"), U: R.Tensor((8, 8), "float32")):
        R.func_attr({"num_input": 2})
        s = R.tanh(R.matmul(R.add(one, other), U))
        return s

    @R.function
    def embed(index: R.Tensor((), "int32"), rows: R.Tensor((5, 8), "float32")):
        R.func_attr({"num_input": 1})
        s = R.take(rows, index, axis=0)
        return s


def array(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype("float32")


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[KernelCode]:
    """The kernels that are compiled, in a process that has compiled none."""
    monkeypatch.setenv(compilation_cache.FOLDER_VARIABLE, "none")
    cpu_cells.forget_cells()
    found: list[KernelCode] = []
    compile_kernel = cpu_kernel_cache.compile_kernel

    def counted(kernel: KernelCode, *arguments: Any) -> bytes:
        found.append(kernel)
        return compile_kernel(kernel, *arguments)

    monkeypatch.setattr(cpu_kernel_cache, "compile_kernel", counted)
    return found


def check_two(model: Any, weights: dict[str, np.ndarray]) -> None:
    b = model.builder()
    instance = b.finish(b.call("node", b.call("leaf", word=1), b.call("leaf", word=4)))
    table = weights["table"]
    np.testing.assert_allclose(model([instance])[0], np.tanh((table[1] + table[4]) @ weights["W"]), rtol=1e-5)


def check_three(model: Any, weights: dict[str, np.ndarray]) -> None:
    b = model.builder()
    joined = b.call("join", b.call("embed", index=0), b.call("embed", index=2))
    instance = b.finish([joined, b.call("fresh", joined)])
    rows = weights["rows"]
    state = np.tanh((rows[0] + rows[2]) @ weights["U"])
    for found, wanted in zip(model([instance])[0], (state, 2 * np.tanh(state @ weights["V"])), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_one_more_cell_is_one_more_kernel(built: list[KernelCode]) -> None:
    two = {"table": array(5, H), "W": array(H, H)}
    three = {"rows": array(5, H), "U": array(H, H), "V": array(H, H)}
    first = eb.compile(Two, two)
    assert {kernel.names[0].partition("_")[0] for kernel in built} == {"leaf", "node"}
    known = len(built)
    second = eb.compile(Three, three)
    assert [kernel.names[0] for kernel in built[known:]] == ["fresh_stage0"]
    check_three(second, three)
    check_two(first, two)
    check_two(eb.compile(Two, two), two)
    assert len(built) == known + 1


def test_the_same_cells_under_other_names_compile_nothing(
    built: list[KernelCode], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled_code = cpu_kernel_cache.compiled_code
    levels: list[Any] = []

    def counted(module: Any, target: Any, pipeline: str) -> bytes:
        levels.append(target.export().get("opt-level"))
        return compiled_code(module, target, pipeline)

    monkeypatch.setattr(cpu_kernel_cache, "compiled_code", counted)
    weights = {"table": array(5, H), "W": array(H, H)}
    check_two(eb.compile(Two, weights), weights)
    assert levels[-2:] == [None, 0]  # the steps and the entry
    packs = [one for one in built if one.packs]
    assert packs == [one for one in built if one.names[0].endswith("_pack")]
    assert 0 < levels[:-2].count(1) == len(packs) == len(built) - levels[:-2].count(None)
    known = len(levels)
    others = {tvm.ir.GlobalVar(f"other_{var.name_hint}"): function for var, function in Two.functions.items()}
    renamed = {var: one.with_attr("global_symbol", var.name_hint) for var, one in others.items()}
    model = eb.compile(tvm.IRModule(renamed), weights)
    b = model.builder()
    instance = b.finish(b.call("other_node", b.call("other_leaf", word=1), b.call("other_leaf", word=4)))
    table = weights["table"]
    np.testing.assert_allclose(model([instance])[0], np.tanh((table[1] + table[4]) @ weights["W"]), rtol=1e-5)
    assert len(levels) == known


def test_a_saved_model_with_kernels_of_another(built: list[KernelCode], tmp_path: Path) -> None:
    eb.compile(Two, {"table": array(5, H), "W": array(H, H)})
    three = {"rows": array(5, H), "U": array(H, H), "V": array(H, H)}
    eb.compile(Three, three).save(tmp_path / "model.edb")
    check_three(eb.load(tmp_path / "model.edb"), three)
    other = {name: array(*weight.shape) for name, weight in three.items()}
    check_three(eb.load(tmp_path / "model.edb", params=other), other)


def test_whatever_changes_the_code_is_a_miss(built: list[KernelCode], monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"table": array(5, H), "W": array(H, H)}
    eb.compile(Two, weights)
    kernels = len(built)
    contexts: dict[str, Any] = {
        "config": {"config": {"tirx.disable_vectorize": True}},
        "disabled": {"disabled_pass": ["tirx.UnrollLoop"]},
        "level": {"opt_level": 1},
    }
    options: dict[str, Any] = {
        "fast_math": {"fast_math": False},
        "target": {"target": {"kind": "llvm", "mcpu": "x86-64-v2"}},
    }
    patches = {"version": "metadata.version", "sources": "sources_digest", "cpu": "cpu_features"}
    for what in (*contexts, *options, *patches):
        known = len(built)
        with monkeypatch.context() as patch, tvm.transform.PassContext(**contexts.get(what, {})):
            if what in patches:
                patch.setattr(f"edbatch_tvm.runtime.compilation_cache.{patches[what]}", lambda *_: "another")
            check_two(eb.compile(Two, weights, **options.get(what, {})), weights)
            assert len(built) == known + kernels, what
            eb.compile(Two, weights, **options.get(what, {}))
            assert len(built) == known + kernels, what


def test_watched_passes_run(built: list[KernelCode]) -> None:
    weights = {"table": array(5, H), "W": array(H, H)}
    eb.compile(Two, weights)
    known = len(built)
    with tvm.transform.PassContext(instruments=[tvm.ir.instrument.PassTimingInstrument()]):
        check_two(eb.compile(Two, weights), weights)
    assert len(built) == 2 * known


def cell(number: float = 1.5, shift: int = 1, dtype: str = "float32", op: Callable[..., Any] = T.exp) -> Any:
    """A cell in TIR, and one that differs in one thing."""

    @I.ir_module
    class Cells:
        @T.prim_func(private=True, s_tir=True)
        def code(x: T.Buffer((16,), "float32"), y: T.Buffer((16,), "float32")):
            for i in range(16):
                with T.sblock("y"):
                    v = T.axis.spatial(16, i)
                    y[v] = T.cast(T.cast(op(x[(v + shift) % 16]), dtype) * T.cast(T.float32(number), dtype), "float32")

        @R.function
        def cell(x: R.Tensor((16,), "float32")):
            cls = Cells
            R.func_attr({"num_input": 1})
            y = R.call_tir(cls.code, (x,), out_ty=R.Tensor((16,), "float32"))
            return y

    return Cells


def digests(mod: Any) -> set[str]:
    backend = eb.backends.find_backend("llvm")
    lowered = lower_cells(mod, {}, backend, eb.backends.CompileOptions())
    kernels, _ = split_program(lowered.module, sharing_ir(backend.target))  # type: ignore[attr-defined]
    return {kernel.digest for kernel in kernels}


def test_every_part_of_the_code_is_in_the_digest() -> None:
    usual = digests(cell())
    assert digests(cell()) == usual
    one = np.float32(1.5)
    others = [
        {"number": float(np.nextafter(one, np.float32(2)))},
        {"shift": 2},
        {"dtype": "float16"},
        {"op": T.sqrt},
    ]
    seen = [usual]
    for other in others:
        found = digests(cell(**other))
        assert found not in seen, other
        seen.append(found)
