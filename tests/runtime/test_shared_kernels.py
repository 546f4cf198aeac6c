"""Models with equal cells: one set of kernels, the right weights and attributes for each."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from tvm import IRModule, relax
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.runtime import Model
from relay_ext.workshare_loops import DIMENSIONS

COUNT, SIZE, WORDS = 40, 24, 6

Weights = dict[str, np.ndarray]


def cell(number: int) -> relax.Function:
    """``tanh(h @ W + table[word] + b)``: packed weights, a table, and an attribute."""
    builder = relax.BlockBuilder()
    h = relax.Var(f"h{number}", relax.TensorType((SIZE,), "float32"))
    word = relax.Var(f"word{number}", relax.TensorType((), "int32"))
    shapes = {"W": (SIZE, SIZE), "table": (WORDS, SIZE), "b": (SIZE,)}
    names = {"b": "b"} if number % 2 else {}
    W, table, b = (
        relax.Var(names.get(one, f"{one}{number}"), relax.TensorType(shape, "float32")) for one, shape in shapes.items()
    )
    with builder.function("cell", [h, word, W, table, b], attrs={"num_input": 2}):
        with builder.dataflow():
            row = builder.emit(R.take(table, word, axis=0))
            out = builder.emit_output(R.tanh(R.add(R.add(R.matmul(h, W), row), b)))
        builder.emit_func_output(out)
    return builder.finalize()["cell"].with_attr("global_symbol", f"cell{number}")


def general(number: int) -> relax.Function:
    """``h * cumsum(h @ W)``: not made of stages, so it reads its weight as it is."""
    builder = relax.BlockBuilder()
    h = relax.Var("h", relax.TensorType((SIZE,), "float32"))
    weight = relax.Var(f"V{number}", relax.TensorType((SIZE, SIZE), "float32"))
    with builder.function("cell", [h, weight], attrs={"num_input": 1}):
        with builder.dataflow():
            out = builder.emit_output(R.multiply(h, R.cumsum(R.matmul(h, weight), axis=0)))
        builder.emit_func_output(out)
    return builder.finalize()["cell"].with_attr("global_symbol", f"general{number}")


def weights(seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    found: Weights = {"b": rng.normal(size=SIZE).astype(np.float32)}
    for number in range(COUNT):
        found[f"W{number}"] = rng.normal(size=(SIZE, SIZE)).astype(np.float32) / SIZE
        found[f"table{number}"] = rng.normal(size=(WORDS, SIZE)).astype(np.float32)
        if number % 2 == 0:
            found[f"b{number}"] = rng.normal(size=SIZE).astype(np.float32)
    for number in range(3):
        found[f"V{number}"] = rng.normal(size=(SIZE, SIZE)).astype(np.float32)
    return found


def module() -> IRModule:
    cells = {f"cell{number}": cell(number) for number in range(COUNT)}
    return IRModule(cells | {f"general{number}": general(number) for number in range(3)})


@pytest.fixture(scope="module")
def given() -> Weights:
    return weights(0)


@pytest.fixture(scope="module")
def model(given: Weights) -> Model:
    return eb.compile(module(), given)


def check(model: Model, given: Weights) -> None:
    """Every cell, in two instances, after each other and side by side, against NumPy."""
    rng = np.random.default_rng(1)
    instances, wanted = [], []
    for _ in range(2):
        builder = model.builder()
        start = rng.normal(size=SIZE).astype(np.float32)
        value, reference = start, start.astype(np.float64)
        outputs, references = [], []
        for number in range(COUNT):
            word = int(rng.integers(WORDS))
            value = builder.call(f"cell{number}", value, **{f"word{number}": word})
            bias = given["b" if number % 2 else f"b{number}"]
            reference = np.tanh(reference @ given[f"W{number}"] + given[f"table{number}"][word] + bias)
            outputs.append(value)
            references.append(reference)
        for number in range(3):
            outputs.append(builder.call(f"general{number}", value))
            references.append(reference * np.cumsum(reference @ given[f"V{number}"]))
        instances.append(builder.finish(outputs))
        wanted.append(references)
    for found, references in zip(model(instances), wanted, strict=True):
        np.testing.assert_allclose(np.stack(found), np.stack(references), rtol=1e-4, atol=1e-5)


def test_one_set_of_kernels(model: Model, given: Weights) -> None:
    kernels = {f"cell{number}": ("cell0_stage0",) for number in range(COUNT)}
    assert model.kernel_names == kernels | {f"general{number}": ("general0",) for number in range(3)}
    compiled = [name for name, attributes in model.executor.artifact.attributes.items() if DIMENSIONS in attributes]
    assert len([name for name in compiled if "edbatch.cell" in model.executor.artifact.attributes[name]]) == 2
    assert set(model.paths) == set(model.signature.names)
    assert [model.signature[f"cell{number}"].attributes[0].bound for number in (0, 7)] == [WORDS, WORDS]
    check(model, given)


def test_new_weights(model: Model, given: Weights) -> None:
    model.refresh(weights(2))
    check(model, weights(2))
    model.refresh(given)
    check(model, given)


def test_saved(model: Model, given: Weights, tmp_path: Path) -> None:
    model.save(tmp_path / "model.edb")
    loaded = eb.load(tmp_path / "model.edb")
    assert loaded.kernel_names == model.kernel_names
    assert loaded.paths == model.paths
    check(loaded, given)
    check(eb.load(tmp_path / "model.edb", weights(3)), weights(3))


@pytest.mark.parametrize("granularity", ["op", "group"])
def test_operators(given: Weights, granularity: str) -> None:
    model = eb.compile(module(), given, granularity=granularity)
    names = set(model.kernel_names.values())
    assert len(names) < 12 < COUNT < len(model.kernel_names)
    check(model, given)


def test_unfused(given: Weights) -> None:
    check(eb.compile(module(), given, granularity="op", fused=False), given)


def test_dumped(given: Weights, tmp_path: Path) -> None:
    eb.compile(module(), given, dump_dir=tmp_path)
    names = sorted(os.listdir(tmp_path))
    assert names[:4] == ["00_BindSizes.py", "01_CheckCells.py", "02_ShareCells.py", "03_LegalizeCells.py"]
    assert (tmp_path / names[2]).read_text().count("@R.function") == 2


def test_memory_of_torch_is_shared_for_every_cell() -> None:
    torch = pytest.importorskip("torch")
    size = 16
    tensors = {f"V{number}": torch.zeros(size, size) for number in range(3)}
    if any(tensor.data_ptr() % 64 for tensor in tensors.values()):
        pytest.skip("torch's memory is not aligned here")

    def small(number: int) -> relax.Function:
        builder = relax.BlockBuilder()
        h = relax.Var("h", relax.TensorType((size,), "float32"))
        weight = relax.Var(f"V{number}", relax.TensorType((size, size), "float32"))
        with builder.function("cell", [h, weight], attrs={"num_input": 1}):
            with builder.dataflow():
                out = builder.emit_output(R.multiply(h, R.cumsum(R.matmul(h, weight), axis=0)))
            builder.emit_func_output(out)
        return builder.finalize()["cell"].with_attr("global_symbol", f"cell{number}")

    model = eb.compile(IRModule({f"cell{number}": small(number) for number in range(3)}), tensors)
    held = model.held_weights()
    assert [held[f"weight:V{n}"].ctypes.data for n in range(3)] == [tensors[f"V{n}"].data_ptr() for n in range(3)]


def test_equal_weights_are_packed_once() -> None:
    """Cells equal in weights as well share the packed ones."""
    module = IRModule({"one": cell(0), "other": cell(0).with_attr("global_symbol", "other")})
    given = {name: array for name, array in weights(0).items() if name in ("W0", "table0", "b0")}
    model = eb.compile(module, given)
    assert sorted(model.held_weights()) == ["packed:one_stage0", "table:table0"]
