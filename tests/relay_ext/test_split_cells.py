"""Cells into ops: the ops as cells, and what each cell consists of."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
import tvm
from tvm import IRModule
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from edbatch_tvm.errors import CellError
from edbatch_tvm.models import get_workload
from relay_ext.signature import signature_of
from relay_ext.split_cells import SplitCells, split_cells

H = 4


def body(mod: Any, cell: str) -> str:
    """The body of a cell as text."""
    split = split_cells(mod)
    return split.bodies[split.cells.type_id(cell)].format(signature_of(split.module))


def lines(text: str) -> str:
    return textwrap.dedent(text).strip()


def assert_split(before: Any, expected: Any) -> None:
    after = SplitCells()(before)
    tvm.ir.assert_structural_equal(after, expected)
    assert list(signature_of(after)) == [signature_of(after)[name] for name in signature_of(after).names]
    assert weights(after) == weights(expected)


def weights(mod: IRModule) -> dict[str, list[str]]:
    """Structural equality does not compare names of parameters, and weights are shared by name."""
    return {var.name_hint: [param.name for param in function.params] for var, function in mod.functions.items()}


def test_equal_ops_of_different_cells_are_one() -> None:
    @I.ir_module
    class Before:
        @R.function
        def leaf(
            word: R.Tensor((), "int32"),
            table: R.Tensor((9, H), "float32"),
            W: R.Tensor((H, H), "float32"),
            b: R.Tensor((H,), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.tanh(R.add(R.matmul(R.take(table, word, axis=0), W), b))
                R.output(y)
            return y

        @R.function
        def gate(x: R.Tensor((H,), "float32"), W: R.Tensor((H, H), "float32"), V: R.Tensor((H, H), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.tanh(R.matmul(x, W))
                z = R.matmul(x, V)
                R.output(y, z)
            return (z, y)

    @I.ir_module
    class Expected:
        @R.function
        def take_table(a0: R.Tensor((), "int32"), table: R.Tensor((9, H), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                gv = R.take(table, a0, axis=0)
                R.output(gv)
            return gv

        @R.function
        def matmul_W(x0: R.Tensor((H,), "float32"), W: R.Tensor((H, H), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                gv = R.matmul(x0, W)
                R.output(gv)
            return gv

        @R.function
        def add_b(x0: R.Tensor((H,), "float32"), b: R.Tensor((H,), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                gv = R.add(x0, b)
                R.output(gv)
            return gv

        @R.function
        def tanh(x0: R.Tensor((H,), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                gv = R.tanh(x0)
                R.output(gv)
            return gv

        @R.function
        def matmul_V(x0: R.Tensor((H,), "float32"), V: R.Tensor((H, H), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                gv = R.matmul(x0, V)
                R.output(gv)
            return gv

    assert_split(Before, Expected)
    assert body(Before, "leaf") == lines("""
        %0 = take_table(word)
        %1 = matmul_W(%0.0)
        %2 = add_b(%1.0)
        %3 = tanh(%2.0)
        return %3.0
    """)
    assert body(Before, "gate") == lines("""
        %0 = matmul_W(operand 0)
        %1 = tanh(%0.0)
        %2 = matmul_V(operand 0)
        return %2.0, %1.0
    """)


def test_expressions_of_weights_and_integers_are_folded_and_results_stay_together() -> None:
    @I.ir_module
    class Before:
        @R.function
        def cell(x: R.Tensor((H,), "float32"), W: R.Tensor((2 * H, H), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                parts = R.split(R.matmul(x, R.permute_dims(W)), 2)
                y = R.where(R.greater(x, R.const(0, "float32")), parts[1], parts[0])
                R.output(y)
            return y

    @I.ir_module
    class Expected:
        @R.function
        def matmul_W(x0: R.Tensor((H,), "float32"), W: R.Tensor((2 * H, H), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                gv = R.matmul(x0, R.permute_dims(W))
                R.output(gv)
            return gv

        @R.function
        def split(x0: R.Tensor((2 * H,), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                lv = R.split(x0, 2)
                gv = lv[0]
                gv1 = lv[1]
                R.output(gv, gv1)
            return (gv, gv1)

        @R.function
        def where(x0: R.Tensor((H,), "float32"), x1: R.Tensor((H,), "float32"), x2: R.Tensor((H,), "float32")):
            R.func_attr({"num_input": 3})
            with R.dataflow():
                gv = R.where(R.greater(x0, R.const(0, "float32")), x1, x2)
                R.output(gv)
            return gv

    assert_split(Before, Expected)
    assert body(Before, "cell") == lines("""
        %0 = matmul_W(operand 0)
        %1 = split(%0.0)
        %2 = where(operand 0, %1.1, %1.0)
        return %2.0
    """)


def test_ops_map_over_rows() -> None:
    @I.ir_module
    class Before:
        @R.function
        def node(
            s: R.Tensor((2 * H,), "float32"),
            h: R.Tensor(("k", H), "float32"),
            c: R.Tensor(("k", 1, H), "float32"),
            U: R.Tensor((H, 2 * H), "float32"),
        ):
            R.func_attr({"num_input": 3})
            k = T.int64()
            with R.dataflow():
                gates = R.split(R.sigmoid(R.add(R.matmul(h, U), s)), 2, axis=1)
                kept = R.multiply(gates[0], R.reshape(c, (k, H)))
                joined = R.concat((kept, gates[1]), axis=-1)
                scores = R.nn.softmax(joined, axis=0)
                y = R.sum(R.multiply(scores, joined), axis=0)
                R.output(y)
            return y

    @I.ir_module
    class Expected:
        @R.function
        def matmul_U(x0: R.Tensor((H,), "float32"), U: R.Tensor((H, 2 * H), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                gv = R.matmul(x0, U)
                R.output(gv)
            return gv

        @R.function
        def add(x0: R.Tensor((2 * H,), "float32"), x1: R.Tensor((2 * H,), "float32")):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                gv = R.add(x0, x1)
                R.output(gv)
            return gv

        @R.function
        def sigmoid(x0: R.Tensor((2 * H,), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                gv = R.sigmoid(x0)
                R.output(gv)
            return gv

        @R.function
        def split(x0: R.Tensor((2 * H,), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                lv = R.split(x0, 2, axis=0)
                gv = lv[0]
                gv1 = lv[1]
                R.output(gv, gv1)
            return (gv, gv1)

        @R.function
        def reshape(x0: R.Tensor((1, H), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                gv = R.reshape(x0, (H,))
                R.output(gv)
            return gv

        @R.function
        def multiply(x0: R.Tensor((H,), "float32"), x1: R.Tensor((H,), "float32")):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                gv = R.multiply(x0, x1)
                R.output(gv)
            return gv

        @R.function
        def concat(x0: R.Tensor((H,), "float32"), x1: R.Tensor((H,), "float32")):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                gv = R.concat((x0, x1), axis=0)
                R.output(gv)
            return gv

        @R.function
        def sum(x0: R.Tensor(("k", 2 * H), "float32"), x1: R.Tensor(("k", 2 * H), "float32")):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                gv = R.sum(R.multiply(R.nn.softmax(x0, axis=0), x1), axis=0)
                R.output(gv)
            return gv

    assert_split(Before, Expected)
    assert body(Before, "node") == lines("""
        %0 = k * matmul_U(operand 1)
        %1 = k * add(%0.0, operand 0)
        %2 = k * sigmoid(%1.0)
        %3 = k * split(%2.0)
        %4 = k * reshape(operand 2)
        %5 = k * multiply(%3.0, %4.0)
        %6 = k * concat(%5.0, %3.1)
        %7 = sum(%6.0, %6.0)
        return %7.0
    """)


def test_a_cell_that_computes_nothing() -> None:
    @I.ir_module
    class Before:
        @R.function
        def swap(x: R.Tensor((H,), "float32"), y: R.Tensor((H,), "float32"), start: R.Tensor((H,), "float32")):
            R.func_attr({"num_input": 2})
            return (y, start, x)

    split = split_cells(Before)
    assert str(signature_of(split.module)) == lines(f"""
        copy(x0: float32[{H}]) -> (float32[{H}])
        copy_start() -> (float32[{H}])
    """)
    assert body(Before, "swap") == lines("""
        %0 = copy(operand 1)
        %1 = copy_start()
        %2 = copy(operand 0)
        return %0.0, %1.0, %2.0
    """)


def test_ops_that_nothing_needs_are_left_out() -> None:
    @I.ir_module
    class Before:
        @R.function
        def cell(x: R.Tensor((H,), "float32"), W: R.Tensor((H, H), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                z = R.exp(R.matmul(x, W))
                y = R.tanh(x)
                R.output(y, z)
            return y

    assert body(Before, "cell") == "%0 = tanh(operand 0)\nreturn %0.0"
    assert signature_of(split_cells(Before).module).names == ("tanh",)


def test_tir_functions_of_the_user_are_ops() -> None:
    @I.ir_module
    class Before:
        @T.prim_func(s_tir=True)
        def twice(x: T.Buffer((T.int64(4),), "float32"), y: T.Buffer((T.int64(4),), "float32")):
            for i in range(T.int64(4)):
                with T.sblock("twice"):
                    v = T.axis.spatial(T.int64(4), i)
                    y[v] = x[v] * T.float32(2)

        @R.function
        def cell(x: R.Tensor((4,), "float32")):
            cls = Before
            with R.dataflow():
                y = R.call_tir(cls.twice, (x,), out_ty=R.Tensor((4,), "float32"))
                z = R.call_tir(cls.twice, (y,), out_ty=R.Tensor((4,), "float32"))
                R.output(z)
            return z

    split = split_cells(Before)
    assert body(Before, "cell") == "%0 = twice_2(operand 0)\n%1 = twice_2(%0.0)\nreturn %1.0"
    assert {var.name_hint for var in split.module.functions} == {"twice", "twice_2"}


def test_ops_that_differ_in_shape_or_attributes_have_names_of_their_own() -> None:
    @I.ir_module
    class Before:
        @R.function
        def cell(x: R.Tensor((2, H), "float32"), y: R.Tensor((H,), "float32")):
            with R.dataflow():
                rows = R.nn.softmax(x, axis=1)
                columns = R.nn.softmax(x, axis=0)
                z = R.nn.softmax(y, axis=-1)
                R.output(rows, columns, z)
            return (rows, columns, z)

    assert signature_of(split_cells(Before).module).names == ("softmax", "softmax_2", "softmax_3")


def test_values_of_unknown_shape_are_refused() -> None:
    @I.ir_module
    class Before:
        @R.function
        def cell(x: R.Tensor((H,), "float32")):
            m = T.int64()
            found = R.nonzero(x)
            where = R.match_cast(found, R.Tensor((1, m), "int64"))
            y = R.sum(R.astype(where, "float32"))
            return y

    with pytest.raises(CellError, match="cell 'cell' has a match_cast; expected values of known shape"):
        split_cells(Before)


@pytest.mark.parametrize(
    ("workload", "types", "calls"),
    [
        ("treelstm", 16, {"leaf": 10, "internal": 20, "readout": 2}),
        ("bilstm-tagger", 17, {"forward_layer1": 14, "forward_layer2": 13, "tag": 4}),
        ("lattice-lstm", 17, {"start": 2, "char_arc": 14, "word_arc": 14, "join": 2, "readout": 2}),
    ],
)
def test_number_of_ops(workload: str, types: int, calls: dict[str, int]) -> None:
    split = split_cells(get_workload(workload).cells(H))
    table = split.table()
    assert len(table.ops) == types
    counts = {cell.name: len(body.calls) for cell, body in zip(table.cells, table.bodies, strict=True)}
    assert counts.items() >= calls.items()
