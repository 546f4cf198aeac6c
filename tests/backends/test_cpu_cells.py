"""Cells for a CPU are compiled one by one: passes run on those alone that nobody has compiled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import IRModule, relax
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.backends import CompileOptions, cpu, cpu_cells, cpu_kernel_cache, find_backend
from edbatch_tvm.backends.compiled_cell import CompiledCell, unpacked_cell
from edbatch_tvm.compiler.lower import lower_cells
from edbatch_tvm.models import get_workload
from edbatch_tvm.runtime import Model, compilation_cache
from edbatch_tvm.runtime.artifact import SYMBOL, attributes_of
from relay_ext.split_program import kernels_of
from schedules.cpu.work_sharing import sharing_ir

H = 8


def number_cell(number: int, name: str = "", table: str = "", bias: bool = True) -> relax.Function:
    """``tanh(h * number + b)``: cells of one structure if their numbers are equal."""
    builder = relax.BlockBuilder()
    h = relax.Var(f"h{name}", relax.TensorType((H,), "float32"))
    weight = relax.Var(table or f"b{number}", relax.TensorType((H,), "float32"))
    with builder.function("cell", [h, weight], attrs={"num_input": 1}):
        with builder.dataflow():
            scaled = R.multiply(h, R.const(np.float32(number)))
            out = builder.emit_output(R.tanh(R.add(scaled, weight) if bias else R.multiply(scaled, weight)))
        builder.emit_func_output(out)
    return builder.finalize()["cell"].with_attr("global_symbol", name or f"cell{number}")


def module(numbers: range) -> IRModule:
    return IRModule({f"cell{number}": number_cell(number) for number in numbers})


def weights(mod: IRModule) -> dict[str, np.ndarray]:
    return {
        param.name: np.random.default_rng(len(param.name)).normal(size=H).astype("float32")
        for function in mod.functions.values()
        for param in function.params[1:]
    }


def check(model: Model, given: dict[str, np.ndarray], numbers: range) -> None:
    builder = model.builder()
    x = np.linspace(-1, 1, H, dtype="float32")
    instance = builder.finish([builder.call(f"cell{number}", x) for number in numbers])
    for number, found in zip(numbers, model([instance])[0], strict=True):
        np.testing.assert_allclose(found, np.tanh(x * number + given[f"b{number}"]), rtol=1e-5, atol=1e-6)


@tvm.transform.module_pass(opt_level=0, name="Seen")
class Seen:
    """Takes down the cells that it is run on."""

    def __init__(self, cells: list[str]) -> None:
        self.cells = cells

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        self.cells.extend(var.name_hint for var, one in mod.functions.items() if isinstance(one, relax.Function))
        return mod


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The cells that passes run on, in a process that has compiled none."""
    cpu_cells.forget_cells()
    found: list[str] = []
    passes = cpu.lone_cell_passes
    monkeypatch.setattr(cpu, "lone_cell_passes", lambda: [Seen(found), *passes()])
    yield found
    cpu_cells.forget_cells()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(compilation_cache.FOLDER_VARIABLE, str(tmp_path / "kept"))
    return tmp_path / "kept"


def compiled(mod: IRModule) -> tuple[Model, dict[str, np.ndarray]]:
    given = weights(mod)
    return eb.compile(mod, given), given


@pytest.mark.parametrize("other_process", [False, True])
def test_the_eleventh_cell_is_the_only_one(other_process: bool, passed: list[str], folder: Path) -> None:
    compiled(module(range(10)))
    assert passed == [f"cell{number}" for number in range(10)]
    if other_process:
        cpu_cells.forget_cells()
    else:
        for path in folder.iterdir():
            path.unlink()
    passed.clear()
    model, given = compiled(module(range(11)))
    assert passed == ["cell10"]
    check(model, given, range(11))


def test_names_and_order_do_not_count(passed: list[str]) -> None:
    compiled(IRModule({"one": number_cell(1, "one", "b"), "two": number_cell(2, "two", "c")}))
    passed.clear()
    mod = IRModule({"cell2": number_cell(2), "cell3": number_cell(3), "cell1": number_cell(1)})
    model, given = compiled(mod)
    assert passed == ["cell3"]
    check(model, given, range(1, 4))


def test_what_is_another_cell(passed: list[str]) -> None:
    compiled(module(range(1)))
    for other in (number_cell(0, bias=False), number_cell(1)):
        passed.clear()
        compiled(IRModule({"cell": other.with_attr("global_symbol", "cell")}))
        assert passed == ["cell"]


def tied(names: tuple[str, str]) -> IRModule:
    """``h @ V + tanh(h @ W)``, with weights of these names."""
    builder = relax.BlockBuilder()
    h = relax.Var("h", relax.TensorType((H,), "float32"))
    V, W = (relax.Var(name, relax.TensorType((H, H), "float32")) for name in names)
    with builder.function("cell", [h, V, W], attrs={"num_input": 1}):
        with builder.dataflow():
            out = builder.emit_output(R.add(R.matmul(h, V), R.tanh(R.matmul(h, W))))
        builder.emit_func_output(out)
    return builder.finalize()


def test_tied_weights_are_another_cell(passed: list[str]) -> None:
    rng = np.random.default_rng(0)
    given = {name: rng.normal(size=(H, H)).astype("float32") for name in ("V", "W")}
    x = rng.normal(size=H).astype("float32")
    for names in (("V", "W"), ("W", "W"), ("W", "V")):
        model = eb.compile(tied(names), {name: given[name] for name in names})
        builder = model.builder()
        instance = builder.finish(builder.call("cell", x))
        V, W = (given[name] for name in names)
        np.testing.assert_allclose(model([instance])[0], x @ V + np.tanh(x @ W), rtol=1e-4, atol=1e-5)
    assert passed == ["cell", "cell"]


def reason_cell(name: str) -> IRModule:
    """A cell that keeps the general path, for a reason that names a variable."""
    builder = relax.BlockBuilder()
    h = relax.Var(name, relax.TensorType((H,), "float32"))
    with builder.function("cell", [h], attrs={"num_input": 1}):
        with builder.dataflow():
            out = builder.emit_output(R.nn.softmax(R.cumsum(h, axis=0)))
        builder.emit_func_output(out)
    return builder.finalize()


def test_reasons_name_what_they_are_about(passed: list[str]) -> None:
    paths = [eb.compile(reason_cell(name), {}).paths["cell"] for name in ("first", "second", "first")]
    assert passed == ["cell", "cell"]
    assert paths[0] == paths[2]
    assert all("(" in path for path in paths)


WORKLOADS = ("treelstm", "mvrnn", "childsum-tree", "bilstm-tagger-char", "lattice-gru")


@pytest.mark.parametrize("name", WORKLOADS)
def test_one_by_one_is_all_together(name: str) -> None:
    """The same kernels, by digest, and the same attributes as of all cells in one module."""
    workload = get_workload(name)
    mod, given, backend = workload.cells(4), workload.weights(4), find_backend("llvm")
    together = lower_cells(mod, given, backend, CompileOptions())
    cpu_cells.forget_cells()
    codes = {}
    patch = pytest.MonkeyPatch()
    patch.setattr(cpu_kernel_cache, "compile_kernel", lambda kernel, *_: codes.setdefault(kernel.digest, b"code"))
    patch.setattr(cpu_cells, "program_objects", lambda *_: [])
    patch.setattr(cpu_cells, "linked", lambda objects: b"".join(objects))
    try:
        apart = lower_cells(mod, given, backend, CompileOptions(), reuse=True)
    finally:
        patch.undo()
        cpu_cells.forget_cells()
    assert apart.compiled is not None
    assert set(codes) == {one.digest for one in kernels_of(together.module, sharing_ir(backend.target))}  # type: ignore[attr-defined]
    wanted = {name: own for name, own in attributes_of(together.module).items() if own.get("edbatch.path") != "loop"}
    ignored = {"global_symbol", SYMBOL}

    def plain(functions: Any) -> Any:
        return {name: {k: v for k, v in own.items() if k not in ignored} for name, own in functions.items()}

    assert plain(apart.compiled.attributes) == plain(wanted)
    assert apart.signature == together.signature
    assert {k: v.tolist() for k, v in apart.arrays.items()} == {k: v.tolist() for k, v in together.arrays.items()}


def cell_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{compilation_cache.CELL_SUFFIX}"))


def test_damaged_cells_are_compiled_again(passed: list[str], folder: Path) -> None:
    compiled(module(range(2)))
    first, second = cell_files(folder)
    whole = first.read_bytes()
    second.write_bytes(whole)  # sealed, but of another cell
    first.write_bytes(whole[:-1])
    for path in folder.glob("*.cells"):
        path.unlink()
    cpu_cells.forget_cells()
    passed.clear()
    model, given = compiled(module(range(2)))
    assert sorted(passed) == ["cell0", "cell1"]
    check(model, given, range(2))
    assert first.read_bytes() == whole


def test_a_cell_comes_back_from_its_file() -> None:
    constants = [np.arange(6, dtype="float32").reshape(2, 3), np.array([1, 2], "int64")]
    cell = CompiledCell([], {"a": b"code", "b": b""}, [None, 3], constants)
    assert cell.size == 4 + 6 * 4 + 2 * 8
    back = unpacked_cell(cell.packed("key"), "key")
    assert (back.functions, back.objects, back.bounds) == ([], cell.objects, [None, 3])
    for one, other in zip(back.constants, constants, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    with pytest.raises(ValueError, match="another key"):
        unpacked_cell(cell.packed("key"), "other")
