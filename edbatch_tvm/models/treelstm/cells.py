"""TreeLSTM cells for binary parse trees (Tai, Socher and Manning, ACL 2015, the N-ary form with N = 2)."""

# TVMScript annotates parameters with calls, which no type checker follows.
# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

from typing import Any

from tvm.script import ir as I
from tvm.script import relax as R

from edbatch_tvm.models.vocabulary import VOCABULARY

CLASSES = 5
"""Sentiment labels of the Stanford Sentiment Treebank."""


def cells(hidden: int) -> Any:
    """Module of the cells ``leaf``, ``internal`` and ``readout``; embedding and hidden size are equal.

    ======== ==================================================================================================
    leaf     i, o = sigmoid(W x + b), u = tanh(W x + b), c = i * u, h = o * tanh(c)
    internal i, o = sigmoid(U [h1; h2] + b), u = tanh(U [h1; h2] + b), f_k = sigmoid(U_fk h_k + b_f),
             c = i * u + f1 * c1 + f2 * c2, h = o * tanh(c)
    readout  5 logits of h
    ======== ==================================================================================================
    """
    H = hidden

    @I.ir_module
    class TreeLSTM:
        @R.function
        def leaf(
            word: R.Tensor((), "int32"),
            embedding: R.Tensor((VOCABULARY, H), "float32"),
            W_leaf: R.Tensor((H, 3 * H), "float32"),
            b_leaf: R.Tensor((3 * H,), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                x = R.take(embedding, word, axis=0)
                iou = R.split(R.matmul(x, W_leaf) + b_leaf, 3)
                c = R.sigmoid(iou[0]) * R.tanh(iou[2])
                h = R.sigmoid(iou[1]) * R.tanh(c)
                R.output(h, c)
            return h, c

        @R.function
        def internal(
            h1: R.Tensor((H,), "float32"),
            c1: R.Tensor((H,), "float32"),
            h2: R.Tensor((H,), "float32"),
            c2: R.Tensor((H,), "float32"),
            U_iou: R.Tensor((2 * H, 3 * H), "float32"),
            b_iou: R.Tensor((3 * H,), "float32"),
            U_f1: R.Tensor((H, H), "float32"),
            U_f2: R.Tensor((H, H), "float32"),
            b_f: R.Tensor((H,), "float32"),
        ):
            R.func_attr({"num_input": 4})
            with R.dataflow():
                iou = R.split(R.matmul(R.concat((h1, h2)), U_iou) + b_iou, 3)
                f1 = R.sigmoid(R.matmul(h1, U_f1) + b_f)
                f2 = R.sigmoid(R.matmul(h2, U_f2) + b_f)
                c = R.sigmoid(iou[0]) * R.tanh(iou[2]) + f1 * c1 + f2 * c2
                h = R.sigmoid(iou[1]) * R.tanh(c)
                R.output(h, c)
            return h, c

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

    return TreeLSTM
