"""Views and leading dimensions of 1 move to the cell's boundary."""

from __future__ import annotations

import tvm
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from relay_ext.drop_unit_dims import DropUnitDims


def check(before: tvm.IRModule, expected: tvm.IRModule) -> None:
    tvm.ir.assert_structural_equal(tvm.transform.Sequential([DropUnitDims()])(before), expected)


def test_views_around_a_product_go_away() -> None:
    @I.ir_module
    class Before:
        @R.function
        def cell(x: R.Tensor((4,), "float32"), W: R.Tensor((3, 4), "float32"), b: R.Tensor((3,), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                row = R.reshape(x, R.shape([1, 4]))
                product = R.matmul(row, R.permute_dims(W, axes=[1, 0]))
                total = R.add(b, product)
                y = R.tanh(R.squeeze(total, axis=[0]))
                R.output(y)
            return y

    @I.ir_module
    class Expected:
        @R.function
        def cell(x: R.Tensor((4,), "float32"), W: R.Tensor((3, 4), "float32"), b: R.Tensor((3,), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                transposed = R.permute_dims(W, axes=[1, 0])
                product = R.matmul(x, transposed)
                total = R.add(b, product)
                y = R.tanh(total)
                R.output(y)
            return y

    check(Before, Expected)


def test_parameters_and_results_keep_their_shapes() -> None:
    @I.ir_module
    class Before:
        @R.function
        def cell(x: R.Tensor((1, 4), "float32"), y: R.Tensor((4,), "float32")):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                joined = R.concat((x, R.expand_dims(y, axis=[0])), axis=1)
                parts = R.split(joined, 2, axis=1)
                z = R.multiply(parts[0], R.nn.softmax(parts[1], axis=-1))
                R.output(z)
            return z

    @I.ir_module
    class Expected:
        @R.function
        def cell(x: R.Tensor((1, 4), "float32"), y: R.Tensor((4,), "float32")):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                bare = R.reshape(x, R.shape([4]))
                joined = R.concat((bare, y), axis=0)
                parts = R.split(joined, 2, axis=0)
                first = parts[0]
                second = parts[1]
                weights = R.nn.softmax(second, axis=0)
                product = R.multiply(first, weights)
                z = R.reshape(product, R.shape([1, 4]))
                R.output(z)
            return z

    check(Before, Expected)


def test_broadcast_to_the_rows_of_a_variadic_operand_goes_away() -> None:
    @I.ir_module
    class Before:
        @R.function
        def cell(x: R.Tensor((1, 4), "float32"), rows: R.Tensor(("k", 4), "float32")):
            R.func_attr({"num_input": 2})
            k = T.int64()
            with R.dataflow():
                same = R.broadcast_to(x, R.shape([k, 4]))
                h = R.sum(R.add(rows, same), axis=[0], keepdims=True)
                R.output(h)
            return h

    @I.ir_module
    class Expected:
        @R.function
        def cell(x: R.Tensor((1, 4), "float32"), rows: R.Tensor(("k", 4), "float32")):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                bare = R.reshape(x, R.shape([4]))
                added = R.add(rows, bare)
                total = R.sum(added, axis=[0])
                h = R.reshape(total, R.shape([1, 4]))
                R.output(h)
            return h

    check(Before, Expected)


def test_an_index_is_the_attribute_itself() -> None:
    @I.ir_module
    class Before:
        @R.function
        def cell(word: R.Tensor((), "int64"), table: R.Tensor((9, 4), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                narrow = R.astype(word, "int32")
                row = R.take(table, R.reshape(narrow, R.shape([1])), axis=0)
                h = R.reshape(row, R.shape([4]))
                R.output(h)
            return h

    @I.ir_module
    class Expected:
        @R.function
        def cell(word: R.Tensor((), "int64"), table: R.Tensor((9, 4), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                h = R.take(table, word, axis=0)
                R.output(h)
            return h

    check(Before, Expected)


def test_an_operator_without_a_rule_keeps_its_shapes() -> None:
    @I.ir_module
    class Before:
        @R.function
        def cell(x: R.Tensor((4,), "float32"), gamma: R.Tensor((4,), "float32"), beta: R.Tensor((4,), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                row = R.expand_dims(x, axis=[0])
                normed = R.nn.layer_norm(R.tanh(row), gamma, beta, axes=[-1])
                h = R.squeeze(normed, axis=[0])
                R.output(h)
            return h

    @I.ir_module
    class Expected:
        @R.function
        def cell(x: R.Tensor((4,), "float32"), gamma: R.Tensor((4,), "float32"), beta: R.Tensor((4,), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.tanh(x)
                row = R.reshape(y, R.shape([1, 4]))
                normed = R.nn.layer_norm(row, gamma, beta, axes=[-1])
                h = R.reshape(normed, R.shape([4]))
                R.output(h)
            return h

    check(Before, Expected)
