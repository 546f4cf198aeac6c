"""Cells of float64, and cells of both dtypes: operands, weights, casts, saved models."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.checking.comparison import compare
from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.compiler import load_model
from edbatch_tvm.errors import CellError, GraphError, TargetError, WeightError
from edbatch_tvm.graph import merge
from edbatch_tvm.models import WORKLOADS, get_workload

H = 20
TOLERANCE = 1e-13

QUICK = ("treelstm", "childsum-tree", "mvrnn")


@I.ir_module
class Tree:
    @R.function
    def leaf(word: R.Tensor((), "int64"), scale: R.Tensor((), "float64"), table: R.Tensor((6, H), "float64")):
        R.func_attr({"num_input": 2})
        with R.dataflow():
            x = R.tanh(R.multiply(R.take(table, word, axis=0), scale))
            R.output(x)
        return x

    @R.function
    def node(h: R.Tensor(("k", H), "float64"), W: R.Tensor((H, H), "float64"), b: R.Tensor((H,), "float64")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            y = R.tanh(R.add(R.matmul(R.sum(h, axis=0), W), b))
            R.output(y)
        return y


@I.ir_module
class Mixed:
    @R.function
    def wide(x: R.Tensor((H,), "float32"), y: R.Tensor((H,), "float64"), W: R.Tensor((H, H), "float64")):
        R.func_attr({"num_input": 2})
        with R.dataflow():
            z = R.add(R.matmul(R.astype(x, "float64"), W), R.multiply(R.astype(x, "float64"), y))
            R.output(z)
        return z

    @R.function
    def both(x: R.Tensor((H,), "float64"), V: R.Tensor((H, H), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            short = R.matmul(R.astype(x, "float32"), V)
            long = R.add(x, R.astype(short, "float64"))
            R.output(short, long)
        return short, long

    @R.function
    def short(x: R.Tensor((H,), "float64"), y: R.Tensor((H,), "float32")):
        R.func_attr({"num_input": 2})
        with R.dataflow():
            z = R.add(R.astype(x, "float32"), y)
            R.output(z)
        return z


def weights(dtype: Any = np.float64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"table": (6, H), "W": (H, H), "b": (H,)}
    return {name: (rng.uniform(-1, 1, shape) / 4).astype(dtype) for name, shape in shapes.items()}


@cache
def tree() -> eb.Model:
    return eb.compile(Tree, weights())


def expected(words: list[int], scales: list[float], rows: list[np.ndarray], given: dict[str, np.ndarray]) -> np.ndarray:
    leaves = [np.tanh(given["table"][word] * scale) for word, scale in zip(words, scales, strict=True)]
    return np.tanh(np.sum([*leaves, *rows], axis=0) @ given["W"] + given["b"])


def run(model: eb.Model, words: list[int], scales: list[Any], rows: list[Any]) -> np.ndarray:
    b = model.builder()
    leaves = [b.call("leaf", scale, word=word) for word, scale in zip(words, scales, strict=True)]
    return model([b.finish(b.call("node", [*leaves, *rows]))])[0]


def test_operands_attributes_tables_and_rows() -> None:
    model = tree()
    assert model.paths == {"leaf": "stage", "node": "stage"}
    rows = [np.linspace(-1, 1, H), np.full(H, 1 / 3)]
    found = run(model, [1, 5, 0], [0.1, 1 / 3, -2.0], rows)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected([1, 5, 0], [0.1, 1 / 3, -2.0], rows, weights()), rtol=0, atol=TOLERANCE)


def test_no_rows() -> None:
    np.testing.assert_allclose(run(tree(), [], [], []), np.tanh(weights()["b"]), rtol=0, atol=TOLERANCE)


def test_narrower_rows_and_weights_are_widened() -> None:
    """What float32 holds float64 holds: nothing is rounded."""
    row = np.random.default_rng(1).uniform(-1, 1, H).astype(np.float32)
    model, short = eb.compile(Tree, weights(np.float32)), weights(np.float32)
    wide = {name: array.astype(np.float64) for name, array in short.items()}
    scale = np.float32(0.3)
    found = run(model, [2], [np.array(scale)], [row])
    np.testing.assert_allclose(
        found, expected([2], [float(scale)], [row.astype(np.float64)], wide), rtol=0, atol=TOLERANCE
    )
    short["b"][:] = 0.5
    model.refresh(short)
    wide["b"][:] = 0.5
    found = run(model, [2], [np.array(scale)], [row])
    np.testing.assert_allclose(
        found, expected([2], [float(scale)], [row.astype(np.float64)], wide), rtol=0, atol=TOLERANCE
    )


def test_wider_rows_are_refused() -> None:
    model = eb.compile(Mixed, {"W": np.eye(H), "V": np.eye(H, dtype=np.float32)})
    b = model.builder()
    value = b.call("wide", np.zeros(H), np.zeros(H))
    with pytest.raises(GraphError, match="float64"):
        b.finish(value)
    with pytest.raises(WeightError, match="weight 'V' is float64"):
        eb.compile(Mixed, {"W": np.eye(H), "V": np.eye(H)})
    b = tree().builder()
    value = b.call("node", [np.zeros(H, np.int64)])
    with pytest.raises(GraphError, match="an external row of shape"):
        b.finish(value)


def test_casts() -> None:
    rng = np.random.default_rng(3)
    W, V = rng.uniform(-0.3, 0.3, (H, H)), rng.uniform(-0.3, 0.3, (H, H)).astype(np.float32)
    model = eb.compile(Mixed, {"W": W, "V": V})
    x, y = rng.uniform(-1, 1, H).astype(np.float32), rng.uniform(-1, 1, H)
    b = model.builder()
    wide = b.call("wide", x, y)
    short, long = b.call("both", wide)
    last = b.call("short", long, short)
    results = model([b.finish([wide, short, long, last])] * 3)[1]
    assert [one.dtype for one in results] == [np.float64, np.float32, np.float64, np.float32]
    z = x.astype(np.float64) @ W + x.astype(np.float64) * y
    np.testing.assert_allclose(results[0], z, rtol=0, atol=TOLERANCE)
    s = z.astype(np.float32) @ V
    np.testing.assert_allclose(results[1], s, rtol=0, atol=1e-6)
    np.testing.assert_allclose(results[2], z + results[1].astype(np.float64), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(results[3], results[2].astype(np.float32) + results[1], rtol=0, atol=1e-6)


def test_without_a_cast_is_refused() -> None:
    """TVM refuses operands of two dtypes where the cell is written."""
    with pytest.raises(Exception, match="float32"):

        @I.ir_module
        class Wrong:
            @R.function
            def cell(x: R.Tensor((4,), "float32"), y: R.Tensor((4,), "float64")):
                R.func_attr({"num_input": 2})
                with R.dataflow():
                    z = R.add(x, y)
                    R.output(z)
                return z


def test_saved_models(tmp_path: Path) -> None:
    model = tree()
    model.save(tmp_path / "tree.edb")
    arguments: Any = ([3, 4], [0.5, 2.0], [np.linspace(0, 1, H)])
    np.testing.assert_array_equal(run(load_model(tmp_path / "tree.edb"), *arguments), run(model, *arguments))


@pytest.mark.parametrize("target", ["cuda-emulated", "numpy"])
def test_other_targets(target: str) -> None:
    model = eb.compile(Tree, weights(), target=target)
    found = run(model, [1, 5], [0.1, 3.0], [np.linspace(0, 1, H)])
    np.testing.assert_allclose(
        found, expected([1, 5], [0.1, 3.0], [np.linspace(0, 1, H)], weights()), rtol=0, atol=TOLERANCE
    )


def test_cells_of_float32_in_float64() -> None:
    with pytest.raises(TargetError, match="dtype 'float64' for a GPU"):
        eb.compile(Tree, weights(), target="cuda-emulated", dtype="float64")
    workload = get_workload("treelstm")
    with pytest.raises(CellError, match="cells are a dict"):
        eb.compile({}, {}, dtype="float64")
    model = eb.compile(workload.cells(8), workload.weights(8), dtype="float64")
    assert {spec.dtype for spec in model.signature.value_specs} == {"float64"}


@pytest.mark.parametrize(
    ("name", "granularity"),
    [
        *((name, "cell") for name in QUICK),
        ("treelstm", "op"),
        ("lattice-gru", "group"),
        *(pytest.param(name, "cell", marks=pytest.mark.slow) for name in WORKLOADS if name not in QUICK),
        *(pytest.param(name, "group", marks=pytest.mark.slow) for name in WORKLOADS),
        *(pytest.param(name, "op", marks=pytest.mark.slow) for name in WORKLOADS),
    ],
)
def test_workloads(name: str, granularity: str) -> None:
    workload, hidden = get_workload(name), 12
    weights = workload.weights(hidden)
    model = eb.compile(workload.cells(hidden), weights, policy="agenda", granularity=granularity, dtype="float64")
    if granularity == "cell":
        assert {cell for cell, path in model.paths.items() if path != "stage"} <= {"spell"}  # only a concatenation
    instances = workload.generate(3, model.cells, seed=1)
    cells = model.merge_cells(instances) if granularity != "cell" else merge(instances)
    value_of = model.expand(cells).value_of if granularity != "cell" else None
    compare(cells, model(instances), run_reference(cells, workload.reference, weights), value_of).require("float64")


N = 4096


@I.ir_module
class Functions:
    @R.function
    def functions(x: R.Tensor((N,), "float64")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            a, b, c = R.exp(x), R.sigmoid(x), R.tanh(x)
            R.output(a, b, c)
        return a, b, c


def test_elementary_functions() -> None:
    """exp, sigmoid and tanh within 1e-15 of numbers of 64 bits of mantissa; special values as NumPy has them."""
    rng = np.random.default_rng(0)
    sizes = 10 ** rng.uniform(-320, 3, N // 4)
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -5e-324, 1.7e308, -1.7e308, 709.782712893384, -708.39641853]
    parts = [special, sizes, -sizes, rng.uniform(-2, 2, N // 4), rng.uniform(-750, 750, N // 4 - len(special))]
    x = np.concatenate(parts)
    model = eb.compile(Functions, {})
    b = model.builder()
    found = model([b.finish(list(b.call("functions", x)))])[0]
    wide = x.astype(np.longdouble)
    with np.errstate(all="ignore"):
        expected = np.exp(wide), 1 / (1 + np.exp(-wide)), np.tanh(wide)
        for got, want in zip(found, expected, strict=True):
            narrow = want.astype(np.float64)
            np.testing.assert_array_equal(np.isnan(got), np.isnan(narrow))
            np.testing.assert_array_equal(np.isinf(got), np.isinf(narrow))
            np.testing.assert_array_equal(np.signbit(got[~np.isnan(got)]), np.signbit(narrow[~np.isnan(got)]))
            finite = np.isfinite(narrow)
            error = np.abs(got.astype(np.longdouble) - want)[finite]
            least = np.finfo(np.float64).tiny  # a smaller result may be 0
            assert np.all(error <= np.maximum(1e-15 * np.abs(want[finite]), least))
