"""Cells that look alike."""

from __future__ import annotations

from tvm.script import ir as I
from tvm.script import relax as R


@I.ir_module
class ALIKE:
    @R.function
    def small(x: R.Tensor((4,), "float32"), W: R.Tensor((4, 4), "float32")):
        R.func_attr({"num_input": 1})
        y = R.tanh(R.matmul(x, W))
        return y

    @R.function
    def wide(x: R.Tensor((6,), "float32"), W6: R.Tensor((6, 6), "float32")):
        R.func_attr({"num_input": 1})
        y = R.tanh(R.matmul(x, W6))
        return y

    @R.function
    def other(x: R.Tensor((4,), "float32"), V: R.Tensor((4, 4), "float32")):
        R.func_attr({"num_input": 1})
        y = R.tanh(R.matmul(x, V))
        return y

    @R.function
    def apart(x: R.Tensor((4,), "float32"), W: R.Tensor((4, 4), "float32")):
        R.func_attr({"num_input": 1})
        y = R.sigmoid(R.matmul(x, W))
        return y
