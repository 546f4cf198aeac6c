"""Cells from ``tvm.relax.frontend.nn``."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.relax.frontend import nn

import edbatch_tvm as eb
from edbatch_tvm.errors import CellError

H = 8


class Leaf(nn.Module):
    def __init__(self, embedding: nn.Embedding) -> None:
        self.embedding = embedding
        self.linear = nn.Linear(H, H, dtype=embedding.weight.dtype)

    def forward(self, word: nn.Tensor) -> nn.Tensor:
        return nn.op.tanh(self.linear(self.embedding(word)))


class Sum(nn.Module):
    def __init__(self, dtype: str = "float32") -> None:
        self.linear = nn.Linear(H, H, bias=False, dtype=dtype)

    def forward(self, children: nn.Tensor) -> nn.Tensor:
        return self.linear(nn.op.sum(children, axis=0))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-13)])
def test_cells_share_weights_and_run_as_stages(rng: np.random.Generator, dtype: str, tolerance: float) -> None:
    embedding = nn.Embedding(5, H, dtype=dtype)
    embedding.weight.data = rng.normal(size=(5, H)).astype(dtype)
    word = {"word": nn.spec.Tensor((), "int32")}
    specs = {"a": word, "b": word, "sum": {"children": nn.spec.Tensor(("k", H), dtype)}}
    cells = eb.cells_from_nn({"a": Leaf(embedding), "b": Leaf(embedding), "sum": Sum(dtype)}, specs)
    assert list(cells.params) == ["a.embedding.weight"]
    given = {
        name: rng.normal(size=shape).astype(dtype)
        for name, shape in [
            ("a.linear.weight", (H, H)),
            ("a.linear.bias", (H,)),
            ("b.linear.weight", (H, H)),
            ("b.linear.bias", (H,)),
            ("sum.linear.weight", (H, H)),
        ]
    }
    model = eb.compile(cells.module, {**cells.params, **given})
    assert set(model.paths.values()) == {"stage"}
    b = model.builder()
    values = [b.call("a", word=1), b.call("b", word=4), b.call("a", word=2)]
    (found,) = model([b.finish([b.call("sum", values)])])[0]
    table = embedding.weight.data.numpy()
    rows = [
        np.tanh(given[f"{cell}.linear.weight"] @ table[word] + given[f"{cell}.linear.bias"])
        for cell, word in [("a", 1), ("b", 4), ("a", 2)]
    ]
    expected = given["sum.linear.weight"] @ np.sum(rows, axis=0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_what_cannot_be_a_cell_is_named() -> None:
    with pytest.raises(CellError, match="no spec for cell 'sum'"):
        eb.cells_from_nn({"sum": Sum()}, {})
    with pytest.raises(CellError, match=r"cell 'sum' is a int; expected a module of tvm.relax.frontend.nn"):
        eb.cells_from_nn({"sum": 3}, {"sum": {}})
