"""Cells of symbolic size: bound to the weights' shapes or by name, and refused where that is not one number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.errors import CellError, EdbatchError, WeightError
from relay_ext.bind_sizes import BindSizes, find_sizes
from tests.test_messages import message

H = 12


@I.ir_module
class Before:
    @R.function
    def leaf(word: R.Tensor((), "int32"), E: R.Tensor((9, "H"), "float32")):
        R.func_attr({"num_input": 1})
        h = R.take(E, word, axis=0)
        return h

    @R.function
    def node(children: R.Tensor(("k", "H"), "float32"), W: R.Tensor(("H", "2 * H"), "float32")):
        R.func_attr({"num_input": 1})
        g = R.split(R.matmul(R.sum(children, axis=0), W), 2, axis=0)
        h = R.multiply(R.tanh(g[0]), g[1])
        return h

    @R.function
    def add(x: R.Tensor(("H",), "float32"), y: R.Tensor(("H",), "float32")):
        R.func_attr({"num_input": 2})
        h = R.add(x, y)
        return h


@I.ir_module
class Expected:
    @R.function
    def leaf(word: R.Tensor((), "int32"), E: R.Tensor((9, 12), "float32")):
        R.func_attr({"num_input": 1})
        h = R.take(E, word, axis=0)
        return h

    @R.function
    def node(children: R.Tensor(("k", 12), "float32"), W: R.Tensor((12, 24), "float32")):
        R.func_attr({"num_input": 1})
        g = R.split(R.matmul(R.sum(children, axis=0), W), 2, axis=0)
        h = R.multiply(R.tanh(g[0]), g[1])
        return h

    @R.function
    def add(x: R.Tensor((12,), "float32"), y: R.Tensor((12,), "float32")):
        R.func_attr({"num_input": 2})
        h = R.add(x, y)
        return h


@I.ir_module
class Bare:
    @R.function
    def add(x: R.Tensor(("H",), "float32"), y: R.Tensor(("H", "H"), "float32")):
        R.func_attr({"num_input": 2})
        h = R.matmul(x, y)
        return h


def weights(rng: np.random.Generator, size: int = H) -> dict[str, np.ndarray]:
    shapes = {"E": (9, size), "W": (size, 2 * size)}
    return {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def test_before_and_after(rng: np.random.Generator) -> None:
    assert find_sizes(Before, weights(rng)) == {"H": H}
    after = BindSizes({"H": H})(Before)
    tvm.ir.assert_structural_equal(after, Expected)
    assert [var.name_hint for var in after.functions] == [var.name_hint for var in Before.functions]


def test_a_static_module_stays(rng: np.random.Generator) -> None:
    assert find_sizes(Expected, weights(rng)) == {}
    assert BindSizes({})(Expected).same_as(Expected)


def test_compiled_model_is_right(rng: np.random.Generator) -> None:
    for size in (5, 16):
        given = weights(rng, size)
        model = eb.compile(Before, given)
        assert str(model.signature["add"]) == f"add(x: float32[{size}], y: float32[{size}]) -> (float32[{size}])"
        assert model.signature["node"].operands[0].variadic
        b = model.builder()
        leaves = [b.call("leaf", word=w) for w in (1, 4, 4)]
        result = model([b.finish(b.call("add", b.call("node", leaves), leaves[0]))])[0]
        exact = {name: value.astype("float64") for name, value in given.items()}
        gates = exact["E"][[1, 4, 4]].sum(axis=0) @ exact["W"]
        expected = np.tanh(gates[:size]) * gates[size:] + exact["E"][1]
        np.testing.assert_allclose(result, expected, atol=1e-5 * np.abs(expected).max())


def test_sizes_by_argument() -> None:
    model = eb.compile(Bare, sizes={"H": 3})
    assert str(model.signature["add"]) == "add(x: float32[3], y: float32[3,3]) -> (float32[3])"


@pytest.mark.parametrize(
    ("mod", "change", "sizes", "error", "expected"),
    [
        (
            Before,
            {"W": (8, 16)},
            None,
            CellError,
            "size 'H' is 12 in weight 'E' and 8 in weight 'W'; expected one number for one name",
        ),
        (
            Before,
            {},
            {"H": 8},
            CellError,
            "size 'H' is 8 in the argument sizes and 12 in weight 'E'; expected one number for one name",
        ),
        (
            Bare,
            {},
            None,
            CellError,
            "size 'H' of cell 'add' is not known; expected a weight with that extent, or its number "
            '(hint: eb.compile(..., sizes={"H": 64}))',
        ),
        (Before, {}, {"D": 8}, CellError, "size 'D'; expected a symbolic size of the cells: H, k"),
        (Expected, {}, {"D": 8}, CellError, "size 'D'; expected a symbolic size of the cells: k"),
        (Before, {}, {"H": 0}, CellError, "size 'H' = 0; expected an integer of 1 or more"),
        (Before, {"W": (12, 25)}, None, WeightError, "weight 'W' is float32[12,25]; expected float32[12,24]"),
        (Before, {"W": (12,)}, None, WeightError, "weight 'W' is float32[12]; expected float32[12,24]"),
    ],
)
def test_messages(
    mod: Any,
    change: dict[str, tuple[int, ...]],
    sizes: dict[str, int] | None,
    error: type[EdbatchError],
    expected: str,
    rng: np.random.Generator,
) -> None:
    params = weights(rng) | {name: np.zeros(shape, "float32") for name, shape in change.items()}
    if mod is Bare:
        params = {}
    assert message(error, lambda: eb.compile(mod, params, sizes=sizes)) == expected
