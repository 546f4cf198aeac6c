"""Tensors without elements are refused by name, at every granularity and on every target."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op as R

import edbatch_tvm as eb
from edbatch_tvm.errors import CellError

X, W = "x", "W"
SHAPES = {
    "product over none": ((3, 0), (0, 4), lambda x, w: R.matmul(x, w), "parameter 'x'"),
    "no columns": ((3,), (3, 0), lambda x, w: R.matmul(x, w), "parameter 'W'"),
    "no rows in a table": ((4,), (0, 4), lambda x, w: R.add(x, R.sum(w, axis=0)), "parameter 'W'"),
    "hidden size": ((0,), (0,), lambda x, w: R.add(x, w), "parameter 'x'"),
    "softmax over none": ((2, 0), (1,), lambda x, w: R.nn.softmax(x), "parameter 'x'"),
    "an empty part": ((4,), (1,), lambda x, w: R.concat([R.strided_slice(x, [0], [2], [2]), x]), "a value"),
}


@pytest.mark.parametrize("case", SHAPES)
def test_a_tensor_without_elements(case: str) -> None:
    shape, weight, body, what = SHAPES[case]
    builder = relax.BlockBuilder()
    x, w = (relax.Var(n, relax.TensorType(list(s), "float32")) for n, s in ((X, shape), (W, weight)))
    with builder.function("f", [x, w], attrs={"num_input": 1}):
        with builder.dataflow():
            out = builder.emit_output(builder.normalize(body(x, w)))
        builder.emit_func_output(out)
    for options in ({}, {"granularity": "op"}, {"granularity": "group"}, {"target": "cuda-emulated"}):
        with pytest.raises(CellError, match=f"{what} of cell 'f' has shape .*no elements; expected sizes of 1 or more"):
            eb.compile(builder.get(), {W: np.zeros(weight, "float32")}, **options)
