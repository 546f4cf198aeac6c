"""One TIR function a cell."""

from __future__ import annotations

import numpy as np
import tvm
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from relay_ext.fuse_cells import CELL, NUM_INPUT, NUM_OUTPUT, WEIGHTS, FuseCells, cell_constants
from relay_ext.legalize_cells import LegalizeCells


def test_whole_cell_becomes_one_function() -> None:
    @I.ir_module
    class Before:
        @R.function
        def cell(x: R.Tensor((4,), "float32"), b: R.Tensor((4,), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.add(x, b)
                z = R.multiply(y, y)
                R.output(y, z)
            return (z, y)

    @I.ir_module
    class Expected:
        @T.prim_func(s_tir=True)
        def cell(
            x: T.Buffer((T.int64(4),), "float32"),
            b: T.Buffer((T.int64(4),), "float32"),
            z: T.Buffer((T.int64(4),), "float32"),
            y: T.Buffer((T.int64(4),), "float32"),
        ):
            T.func_attr(
                {
                    "tirx.noalias": True,
                    "edbatch.cell": "cell",
                    "edbatch.num_input": 1,
                    "edbatch.num_output": 2,
                    "edbatch.weights": ["b"],
                }
            )
            for i in range(T.int64(4)):
                with T.sblock("T_add"):
                    v = T.axis.spatial(T.int64(4), i)
                    y[v] = x[v] + b[v]
            for i in range(T.int64(4)):
                with T.sblock("T_multiply"):
                    v = T.axis.spatial(T.int64(4), i)
                    z[v] = y[v] * y[v]

    after = FuseCells()(LegalizeCells()(Before))
    tvm.ir.assert_structural_equal(after["cell"], Expected["cell"])


def test_inputs_and_repeated_values_are_copied_to_outputs() -> None:
    @I.ir_module
    class Before:
        @R.function
        def cell(x: R.Tensor((4,), "float32")):
            return (x, x)

    function = FuseCells()(LegalizeCells()(Before))["cell"]
    assert len(function.params) == 3
    assert int(function.attrs[NUM_OUTPUT]) == 2


def test_constants_become_weights() -> None:
    values = np.arange(4, dtype=np.float32)

    @I.ir_module
    class Before:
        @R.function
        def cell(x: R.Tensor((4,), "float32")):
            with R.dataflow():
                y = R.add(x, R.const(values))
                R.output(y)
            return y

    legal = LegalizeCells()(Before)
    constants = cell_constants(legal)
    assert list(constants) == ["cell.constant0"]
    np.testing.assert_array_equal(constants["cell.constant0"].numpy(), values)
    function = FuseCells()(legal)["cell"]
    assert [str(name) for name in function.attrs[WEIGHTS]] == ["cell.constant0"]
    assert (str(function.attrs[CELL]), int(function.attrs[NUM_INPUT])) == ("cell", 1)
