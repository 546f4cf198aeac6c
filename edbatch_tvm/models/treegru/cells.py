"""TreeGRU cells for binary parse trees: a GRU step for each child, averaged."""

# TVMScript annotates parameters with calls, which no type checker follows.
# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

from typing import Any

from tvm.script import ir as I
from tvm.script import relax as R

from edbatch_tvm.models import gru
from edbatch_tvm.models.treelstm.cells import CLASSES
from edbatch_tvm.models.vocabulary import VOCABULARY


def cells(hidden: int) -> Any:
    """Module of the cells ``leaf``, ``internal`` and ``readout``; embedding and hidden size are equal.

    ======== ==================================================================================================
    leaf     r, z = sigmoid(U e + b), c = tanh(U_c (r * e) + b_c), h = z * e + (1 - z) * c
    internal for each child k: r_k, z_k = sigmoid(U_k h_k + b), c_k = tanh(U_ck (r_k * h_k) + b_c);
             h = 1/2 sum_k (z_k * h_k + (1 - z_k) * c_k)
    readout  5 logits of h
    ======== ==================================================================================================
    """
    H = hidden

    @I.ir_module
    class TreeGRU:
        @R.function
        def leaf(
            word: R.Tensor((), "int32"),
            embedding: R.Tensor((VOCABULARY, H), "float32"),
            U_leaf: R.Tensor((H, 2 * H), "float32"),
            b_leaf: R.Tensor((2 * H,), "float32"),
            U_leaf_c: R.Tensor((H, H), "float32"),
            b_leaf_c: R.Tensor((H,), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                e = R.take(embedding, word, axis=0)
                rz = R.split(R.sigmoid(R.matmul(e, U_leaf) + b_leaf), 2)
                c = R.tanh(R.matmul(rz[0] * e, U_leaf_c) + b_leaf_c)
                h = gru.mixed(rz[1], e, c)
                R.output(h)
            return h

        @R.function
        def internal(
            h1: R.Tensor((H,), "float32"),
            h2: R.Tensor((H,), "float32"),
            U_1: R.Tensor((H, 2 * H), "float32"),
            U_2: R.Tensor((H, 2 * H), "float32"),
            b: R.Tensor((2 * H,), "float32"),
            U_c1: R.Tensor((H, H), "float32"),
            U_c2: R.Tensor((H, H), "float32"),
            b_c: R.Tensor((H,), "float32"),
        ):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                rz1 = R.split(R.sigmoid(R.matmul(h1, U_1) + b), 2)
                rz2 = R.split(R.sigmoid(R.matmul(h2, U_2) + b), 2)
                c1 = R.tanh(R.matmul(rz1[0] * h1, U_c1) + b_c)
                c2 = R.tanh(R.matmul(rz2[0] * h2, U_c2) + b_c)
                h = R.const(0.5) * (gru.mixed(rz1[1], h1, c1) + gru.mixed(rz2[1], h2, c2))
                R.output(h)
            return h

        @R.function
        def readout(
            h: R.Tensor((H,), "float32"),
            W_out: R.Tensor((H, CLASSES), "float32"),
            b_out: R.Tensor((CLASSES,), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                logits = R.matmul(h, W_out) + b_out
                R.output(logits)
            return logits

    return TreeGRU
