"""Products of rows of tables as rows of tables of products."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.checking.comparison import compare
from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.errors import PlanError
from edbatch_tvm.models import get_workload
from relay_ext import tabulate_products as module
from relay_ext.signature import weights_of
from relay_ext.tabulate_products import DerivedWeight, TabulateProducts, rows_read, tabulate_products

E, H, V, N = 32, 48, 7, 40


def names(mod: Any) -> dict[str, list[str]]:
    return {var.name_hint: [param.name for param in function.params] for var, function in mod.functions.items()}


def test_a_row_beside_a_state() -> None:
    @I.ir_module
    class Before:
        @R.function
        def cell(
            h: R.Tensor((H,), "float32"),
            word: R.Tensor((), "int32"),
            table: R.Tensor((V, E), "float32"),
            W: R.Tensor((E + H, N), "float32"),
            b: R.Tensor((N,), "float32"),
        ):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                y = R.tanh(R.matmul(R.concat((R.take(table, word, axis=0), h)), W) + b)
                R.output(y)
            return y

    @I.ir_module
    class Expected:
        @R.function
        def cell(
            h: R.Tensor((H,), "float32"),
            word: R.Tensor((), "int32"),
            b: R.Tensor((N,), "float32"),
            product: R.Tensor((V, N), "float32"),
            rows: R.Tensor((H, N), "float32"),
        ):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                lv = R.take(product, word, axis=0)
                lv1 = R.matmul(h, rows)
                lv2 = R.add(lv, lv1)
                lv3 = R.add(lv2, b)
                y = R.tanh(lv3)
                gv = y
                R.output(gv)
            return gv

    after, derived = tabulate_products(Before, 1 << 20)
    tvm.ir.assert_structural_equal(after, Expected)
    tvm.ir.assert_structural_equal(TabulateProducts()(Before), Expected)
    assert names(after) == {"cell": ["h", "word", "b", "table.W.product0", "W.rows32"]}
    assert derived == (
        DerivedWeight("table.W.product0", "W", 0, E, False, "table"),
        DerivedWeight("W.rows32", "W", E, E + H, False),
    )
    # Without room for the table, and with rows that are too short, nothing changes.
    assert tabulate_products(Before, 4 * V * N - 1)[1] == ()
    tvm.ir.assert_structural_equal(TabulateProducts(4 * V * N - 1)(Before), Before)


def test_what_stays() -> None:
    """Short rows; several rows; rows of operands; weights that are read otherwise keep their own memory."""

    @I.ir_module
    class Cells:
        @R.function
        def short(word: R.Tensor((), "int32"), small: R.Tensor((V, 31), "float32"), W: R.Tensor((31, N), "float32")):
            R.func_attr({"num_input": 1})
            y = R.matmul(R.take(small, word, axis=0), W)
            return y

        @R.function
        def several(words: R.Tensor((2,), "int32"), table: R.Tensor((V, E), "float32"), X: R.Tensor((E, N), "float32")):
            R.func_attr({"num_input": 1})
            y = R.sum(R.matmul(R.take(table, words, axis=0), X), axis=0)
            return y

        @R.function
        def chosen(word: R.Tensor((), "int32"), rows: R.Tensor((V, E), "float32"), X: R.Tensor((E, N), "float32")):
            R.func_attr({"num_input": 2})
            y = R.matmul(R.take(rows, word, axis=0), X)
            return y

    after, derived = tabulate_products(Cells, 1 << 20)
    assert derived == ()
    tvm.ir.assert_structural_equal(after, Cells)
    assert list(names(after)) == ["short", "several", "chosen"]


def test_a_table_that_is_also_read_stays() -> None:
    @I.ir_module
    class Cells:
        @R.function
        def cell(word: R.Tensor((), "int32"), table: R.Tensor((V, E), "float32"), W: R.Tensor((E, E), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                x = R.take(table, word, axis=0)
                y = x + R.matmul(x, W)
                R.output(y)
            return y

    after, _ = tabulate_products(Cells, 1 << 20)
    assert names(after) == {"cell": ["word", "table", "table.W.product0"]}


def test_names_that_are_taken() -> None:
    @I.ir_module
    class Cells:
        @R.function
        def cell(word: R.Tensor((), "int32"), t: R.Tensor((V, E), "float32"), W: R.Tensor((E, N), "float32")):
            R.func_attr({"num_input": 1})
            y = R.matmul(R.take(t, word, axis=0), W)
            return y

    from relay_ext.renaming import module_of, renamed

    mod = module_of(
        {
            "cell": Cells["cell"],
            "other": renamed(Cells["cell"], {"t": "u", "W": "t.W.product0"}),
        }
    )
    after, derived = tabulate_products(mod, 1 << 20)
    assert [one.name for one in derived] == ["t.W.product0_", "u.t.W.product0.product0"]
    assert set(weights_of(after)) == {one.name for one in derived}


@pytest.mark.parametrize("name", ["treelstm", "lattice-lstm", "bilstm-tagger"])
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_workloads_equal_the_reference(name: str, dtype: str) -> None:
    workload = get_workload(name)
    weights = workload.weights(40)
    model = eb.compile(workload.cells(40), weights, dtype=dtype, product_tables=True)
    assert model.weights is not None
    assert model.weights.derived
    for seed in (0, 1):
        if seed:
            weights = workload.weights(40, seed)
            model.refresh(weights)
        instances = [workload.graph(model.builder(), item) for item in workload.source.generate(6, seed)]
        result = model(instances)
        found = compare(result.graph, result, run_reference(result.graph, workload.reference, weights))
        found.require(dtype)


class Reader(nn.Module):
    """PyTorch keeps weights transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(V, E)
        self.project = nn.Linear(E, N)
        self.cell = nn.LSTMCell(E, N)

    def forward(self, word: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.words(word)
        h, c = self.cell(x[None], (h[None], c[None]))
        return h[0] + self.project(x), c[0]


@pytest.mark.parametrize("target", ["llvm", "cuda-emulated", "numpy"])
def test_cells_from_torch(target: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reader = Reader()
    cells, params = eb.cells_from_torch({"read": reader}, {"read": (torch.tensor(0), torch.zeros(N), torch.zeros(N))})
    model = eb.compile(cells, params, target=target, product_tables=True)
    assert model.weights is not None
    assert len([one for one in model.weights.derived if one.table]) == 2
    builder = model.builder()
    rng = np.random.default_rng(0)
    states = rng.standard_normal((2, N)).astype(np.float32)
    names_of = [attribute.name for attribute in model.cells["read"].attributes]
    h, c = builder.call("read", *states, **{names_of[0]: 2})
    h, c = builder.call("read", h, c, **{names_of[0]: V - 1})
    instance = builder.finish([h, c])
    with torch.no_grad():
        wanted = reader(torch.tensor(2), *map(torch.from_numpy, states))
        wanted = reader(torch.tensor(V - 1), *wanted)

    def check(one: Any) -> None:
        for own, expected in zip(one([instance])[0], wanted, strict=True):
            np.testing.assert_allclose(np.asarray(own), expected.numpy(), atol=1e-5)

    check(model)
    if target != "llvm":
        return
    model.save(tmp_path / "model.edb")
    check(eb.load(tmp_path / "model.edb"))
    check(eb.load(tmp_path / "model.edb", params=params))
    with torch.no_grad():
        reader.words.weight.mul_(2)
        wanted = reader(torch.tensor(2), *map(torch.from_numpy, states))
        wanted = reader(torch.tensor(V - 1), *wanted)
    model.refresh()
    check(model)


@pytest.mark.parametrize("given", [-1, "yes", None, 2.5])
def test_other_options(given: Any) -> None:
    workload = get_workload("treelstm")
    with pytest.raises(PlanError, match="product_tables"):
        eb.compile(workload.cells(8), workload.weights(8), product_tables=given)


def test_not_for_operators() -> None:
    workload = get_workload("treelstm")
    for training in (False, True):
        with pytest.raises(PlanError, match="product_tables at granularity 'op'"):
            eb.compile(workload.cells(8), workload.weights(8), product_tables=True, granularity="op", training=training)


def test_for_training_a_weight_is_cut_in_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    @I.ir_module
    class Before:
        @R.function
        def cell(
            h: R.Tensor((H,), "float32"),
            word: R.Tensor((), "int32"),
            table: R.Tensor((V, E), "float32"),
            W: R.Tensor((E + H, N), "float32"),
        ):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                y = R.matmul(R.concat((R.take(table, word, axis=0), h)), W)
                R.output(y)
            return y

    @I.ir_module
    class Expected:
        @R.function
        def cell(
            h: R.Tensor((H,), "float32"),
            word: R.Tensor((), "int32"),
            W: R.Tensor((E + H, N), "float32"),
            product: R.Tensor((V, N), "float32"),
        ):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                lv = R.take(product, word, axis=0)
                lv1 = R.strided_slice(W, [0], [E], [E + H])
                lv2 = R.matmul(h, lv1)
                y = R.add(lv, lv2)
                gv = y
                R.output(gv)
            return gv

    assert tabulate_products(Before, 1 << 20, for_training=True)[1] == ()  # rows are too short
    monkeypatch.setattr(module, "LEAST_IN_TRAINING", E)
    after, derived = tabulate_products(Before, 1 << 20, for_training=True)
    tvm.ir.assert_structural_equal(after, Expected)
    assert [one.name for one in derived] == ["table.W.product0"]
    assert rows_read(after, derived) == {"table.W.product0": [("cell", "word")]}
