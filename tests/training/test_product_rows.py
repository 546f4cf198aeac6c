"""Products of rows of tables in training: once a minibatch for each row that it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.errors import PlanError
from edbatch_tvm.models import get_workload
from relay_ext import tabulate_products
from relay_ext.signature import weights_of
from tests.training.reference import reference_gradients
from tests.training.test_backward import random_cotangents, require_equal

E, H, V, N = 32, 20, 12, 36
"""N is no multiple of what a vector holds."""


@pytest.fixture(autouse=True)
def _short_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of E elements are long enough."""
    monkeypatch.setattr(tabulate_products, "LEAST_IN_TRAINING", E)


@I.ir_module
class Readers:
    """A table and a weight that are read in several ways; one of the cells keeps its weight transposed."""

    @R.function
    def first(word: R.Tensor((), "int32"), table: R.Tensor((V, E), "float32"), W: R.Tensor((E, N), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            parts = R.split(R.matmul(R.take(table, word, axis=0), W), 2)
            h = R.sigmoid(parts[0]) * R.tanh(parts[1])
            y = R.concat((h, h))
            R.output(y)
        return y

    @R.function
    def next(
        x: R.Tensor((N,), "float32"),
        word: R.Tensor((), "int32"),
        other: R.Tensor((), "int64"),
        table: R.Tensor((V, E), "float32"),
        U: R.Tensor((N, 2 * E + N), "float32"),
        b: R.Tensor((N,), "float32"),
    ):
        R.func_attr({"num_input": 3})
        with R.dataflow():
            rows = (R.take(table, word, axis=0), x, R.take(table, other, axis=0))
            y = R.tanh(R.matmul(R.concat(rows), R.permute_dims(U)) + b)
            R.output(y)
        return y

    @R.function
    def last(
        x: R.Tensor((N,), "float32"),
        word: R.Tensor((), "int32"),
        table: R.Tensor((V, E), "float32"),
        W: R.Tensor((E, N), "float32"),
    ):
        R.func_attr({"num_input": 2})
        with R.dataflow():
            row = R.take(table, word, axis=0)
            y = R.matmul(row, W) * x
            z = R.tanh(row)
            R.output(y, z)
        return y, z


def readers(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(spec.shape) / 4).astype(np.float32) for name, spec in weights_of(Readers).items()
    }


def instance(model: Any, rng: Any) -> Any:
    builder = model.builder()

    def outputs(cell: str, *operands: Any, **attributes: Any) -> Any:
        """Those of the cell as written: cells of a loaded model also return what they save."""
        found = builder.call(cell, *operands, **attributes)
        return found if isinstance(found, tuple) else (found,)

    x = outputs("first", word=int(rng.integers(3)))[0]
    for _ in range(rng.integers(4)):
        x = outputs("next", x, word=int(rng.integers(2, 5)), other=int(rng.integers(V)))[0]
    y, z = outputs("last", x, word=int(rng.integers(3, 6)))[:2]
    return builder.finish([x, y, z])


@pytest.mark.parametrize(
    ("target", "dtype", "equal"),
    [
        ("llvm", "float32", False),
        pytest.param("llvm", "float64", True, marks=pytest.mark.slow),
        ("numpy", "float32", True),
        ("cuda-emulated", "float32", False),
    ],
)
def test_gradients_equal_the_reference(target: str, dtype: str, equal: bool) -> None:
    weights = readers()
    model = eb.compile(
        Readers, weights, target=target, dtype=dtype, equal_nodes=equal, training=True, product_tables=True
    )
    rng = np.random.default_rng(1)
    for seed in range(3):
        if seed == 2:
            weights = readers(seed)
            model.refresh(weights)
        result = model([instance(model, rng) for _ in range(5)])
        # Not all outputs: some rows that were read have no gradient.
        cotangents = random_cotangents(result, result.graph.outputs.tolist()[: 9 + seed])
        gradients = result.backward(cotangents)
        require_equal(gradients, reference_gradients(Readers, weights, result.graph, cotangents))
        read = result.report.products
        assert sorted(read) == ["table.U.product0", f"table.U.product{E + N}", "table.W.product0"]
        words = [result.graph.attributes[key] for key in ((0, "word"), (2, "word"))]
        nodes = result.report.graph.type_count if equal else result.graph.type_count
        assert read["table.W.product0"] == (nodes[0] + nodes[2], len(np.unique(np.concatenate(words))))
        index, rows = gradients.rows("table")
        dense = np.zeros((V, E), rows.dtype)
        dense[index] = rows
        np.testing.assert_array_equal(dense, gradients["table"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lattice-lstm", "treelstm", "bilstm-tagger"])
def test_workload(name: str) -> None:
    workload = get_workload(name)
    cells, weights = workload.cells(32), workload.weights(32)
    model = eb.compile(cells, weights, training=True, product_tables=True, database="none")
    plain = eb.compile(cells, weights, training=True, database="none")
    assert set(model.paths.values()) == {"stage"}
    result = model(workload.generate(2, model.cells, seed=3))
    cotangents = random_cotangents(result, result.graph.outputs.tolist())
    gradients = result.backward(cotangents)
    require_equal(gradients, reference_gradients(cells, weights, result.graph, cotangents))
    assert gradients.report.products == {}
    for times, rows in result.report.products.values():
        assert 0 < rows < times
    assert f"{rows} rows, read {times} times" in str(result.report)
    assert plain(workload.generate(2, plain.cells, seed=3)).report.products == {}


def test_rows_are_computed_once_for_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = eb.compile(Readers, readers(), training=True, product_tables=True)
    assert model.products is not None
    batches = model.products._batches
    computed: list[int] = []
    run = batches.run

    def counted(some: Any) -> Any:
        computed.append(sum(len(rows) for _, rows in some))
        return run(some)

    monkeypatch.setattr(batches, "run", counted)
    some = instance(model, np.random.default_rng(2))
    before = model([some])[0]
    model([some, some])
    distinct = sum(rows for _, rows in model([some]).report.products.values())
    assert [one for one in computed if one] == [distinct]
    changed = readers(3)
    model.refresh(changed)
    after = model([some])[0]
    assert [one for one in computed if one] == [distinct] * 2
    fresh = eb.compile(Readers, changed, training=True, product_tables=True)
    for own, other, old in zip(after, fresh([some])[0], before, strict=True):
        np.testing.assert_array_equal(own, other)
        assert not np.array_equal(own, old)


def test_some_rows_are_taken_over() -> None:
    weights = readers()
    model = eb.compile(Readers, weights, training=True, product_tables=True)
    some = instance(model, np.random.default_rng(3))
    for step in range(4):
        gradients = model([some]).backward({value: np.ones(N, np.float32) for value in model([some]).graph.outputs[:2]})
        index, rows = gradients.rows("table")
        weights["table"][index] -= rows
        for name in ("W", "U", "b"):
            weights[name] -= gradients[name] / 8
        model.refresh(weights, rows={"table": index})
        fresh = eb.compile(Readers, weights, training=True, product_tables=True)
        for own, other in zip(model([some])[0], fresh([some])[0], strict=True):
            np.testing.assert_array_equal(own, other, err_msg=str(step))


def test_a_saved_model_has_all_rows(tmp_path: Path) -> None:
    model = eb.compile(Readers, readers(), training=True, product_tables=True)
    model([instance(model, np.random.default_rng(4))])
    model.save(tmp_path / "model.edb")
    loaded, given = eb.load(tmp_path / "model.edb"), eb.load(tmp_path / "model.edb", params=readers(1))
    model_of_others = eb.compile(Readers, readers(1), training=True, product_tables=True)
    for one, other in ((loaded, model), (given, model_of_others)):
        results = [each([instance(each, np.random.default_rng(5))])[0] for each in (one, other)]
        for own, expected in zip(*results, strict=True):
            np.testing.assert_allclose(own, expected, rtol=0, atol=1e-6)


def test_an_output_that_nothing_uses_makes_no_gradient_nan() -> None:
    @I.ir_module
    class Roots:
        @R.function
        def roots(word: R.Tensor((), "int32"), table: R.Tensor((V, E), "float32"), W: R.Tensor((E, N), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                x = R.matmul(R.take(table, word, axis=0), W)
                y = R.tanh(x)
                z = R.sqrt(x - x)
                R.output(y, z)
            return y, z

    weights = {name: readers()[name] for name in ("table", "W")}
    model = eb.compile(Roots, weights, training=True, product_tables=True)
    builder = model.builder()
    result = model([builder.finish(builder.call("roots", word=word)[0]) for word in (2, 3, 2)])
    cotangents = random_cotangents(result, result.graph.outputs.tolist())
    expected = reference_gradients(Roots, weights, result.graph, cotangents)
    require_equal(result.backward(cotangents), expected)
    assert np.abs(expected[0]["W"]).max() > 0


def test_not_where_values_are_computed_again() -> None:
    with pytest.raises(PlanError, match="product_tables with memory='recompute'"):
        eb.compile(Readers, readers(), training=True, product_tables=True, memory="recompute")
