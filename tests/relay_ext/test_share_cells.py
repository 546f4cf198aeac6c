"""Equal cells become one; cells that differ in anything but names do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import IRModule, relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from relay_ext.share_cells import MEMBERS, ShareCells, members_of


@I.ir_module
class Before:
    @T.prim_func(s_tir=True)
    def double(x: T.Buffer((8,)), y: T.Buffer((8,))):
        for i in range(8):
            with T.sblock("double"):
                j = T.axis.spatial(8, i)
                y[j] = x[j] * T.float32(2)

    @T.prim_func(s_tir=True)
    def twice(a: T.Buffer((8,)), b: T.Buffer((8,))):
        for k in range(8):
            with T.sblock("twice"):
                v = T.axis.spatial(8, k)
                b[v] = a[v] * T.float32(2)

    @R.function
    def forward(x: R.Tensor((8,), "float32"), W: R.Tensor((8, 8), "float32"), b: R.Tensor((8,), "float32")):
        R.func_attr({"num_input": 1})
        y = R.tanh(R.add(R.matmul(x, W), b))
        return y

    @R.function
    def backward(z: R.Tensor((8,), "float32"), U: R.Tensor((8, 8), "float32"), b: R.Tensor((8,), "float32")):
        R.func_attr({"num_input": 1})
        h = R.tanh(R.add(R.matmul(z, U), b))
        return h

    @R.function
    def two_weights(x: R.Tensor((8,), "float32"), W: R.Tensor((8, 8), "float32"), c: R.Tensor((8,), "float32")):
        R.func_attr({"num_input": 1})
        y = R.tanh(R.subtract(R.matmul(x, W), c))
        return y

    @R.function
    def first(x: R.Tensor((8,), "float32")):
        cls = Before
        y = R.call_tir(cls.double, (x,), out_ty=R.Tensor((8,), "float32"))
        return y

    @R.function
    def second(h: R.Tensor((8,), "float32")):
        cls = Before
        y = R.call_tir(cls.twice, (h,), out_ty=R.Tensor((8,), "float32"))
        return y


def test_equal_cells_become_one() -> None:
    after = ShareCells()(Before)
    assert [var.name_hint for var in after.functions] == ["double", "twice", "forward", "two_weights", "first"]
    members = [[str(name) for name in member] for member in after["forward"].attrs[MEMBERS]]
    assert members == [["forward", "W", "b"], ["backward", "U", "b"]]
    assert members_of(after["forward"], "forward") == [
        ("forward", {"W": "W", "b": "b"}),
        ("backward", {"W": "U", "b": "b"}),
    ]
    assert members_of(after["first"], "first") == [("first", {}), ("second", {})]
    assert members_of(after["two_weights"], "two_weights") == [("two_weights", {})]


def cell(
    name: str = "cell",
    extent: int = 8,
    dtype: str = "float32",
    constant: Any = 2.0,
    weights: tuple[str, str] = ("W", "U"),
    num_input: int = 1,
    flipped: bool = False,
) -> relax.Function:
    builder = relax.BlockBuilder()
    tensor = relax.TensorType((extent,), dtype)
    x, *params = (relax.Var(one, tensor) for one in ("x", *weights))
    with builder.function(name, [x, *params], attrs={"num_input": num_input}):
        with builder.dataflow():
            left, right = reversed(params) if flipped else params
            y = builder.emit(R.subtract(R.multiply(x, left), right))
            out = builder.emit_output(R.multiply(y, relax.const(np.asarray(constant, dtype), dtype)))
        builder.emit_func_output(out)
    return builder.finalize()[name]


@pytest.mark.parametrize(
    ("changed", "shared"),
    [
        ({}, True),
        ({"weights": ("A", "B")}, True),
        ({"weights": ("U", "W")}, True),
        ({"weights": ("W", "W")}, False),
        ({"extent": 16}, False),
        ({"dtype": "float64"}, False),
        ({"constant": 2.5}, False),
        ({"constant": np.nan}, False),
        ({"constant": [2.0] * 8}, False),
        ({"num_input": 2}, False),
        ({"flipped": True}, False),
    ],
)
def test_what_keeps_cells_apart(changed: dict[str, Any], shared: bool) -> None:
    module = IRModule({"one": cell(), "other": cell(**changed)})
    assert len(ShareCells()(module).functions) == 2 - shared


def test_constants_that_differ_in_one_element() -> None:
    values = np.arange(8.0)
    other = values.copy()
    other[5] = np.nextafter(np.float32(5), np.float32(6))
    equal = IRModule({"one": cell(constant=values), "other": cell(constant=values.copy())})
    assert len(ShareCells()(equal).functions) == 1
    module = IRModule({"one": cell(constant=values), "other": cell(constant=other)})
    assert len(ShareCells()(module).functions) == 2
