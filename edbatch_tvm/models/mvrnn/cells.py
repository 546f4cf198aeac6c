"""MV-RNN cells for binary parse trees (Socher, Huval, Manning and Ng, EMNLP 2012)."""

# TVMScript annotates parameters with calls, which no type checker follows.
# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

from typing import Any

from tvm.script import ir as I
from tvm.script import relax as R

from edbatch_tvm.models.treelstm.cells import CLASSES
from edbatch_tvm.models.vocabulary import VOCABULARY


def cells(hidden: int) -> Any:
    """Module of the cells ``leaf``, ``internal`` and ``readout``.

    ======== ===================================================================================
    leaf     a vector v and a matrix M, both looked up
    internal v = tanh(W_v [M_l v_r; M_r v_l] + b), M = W_M [M_l; M_r] + b_M, of left and right
    readout  5 logits of v
    ======== ===================================================================================
    """
    H = hidden

    @I.ir_module
    class MVRNN:
        @R.function
        def leaf(
            word: R.Tensor((), "int32"),
            embedding: R.Tensor((VOCABULARY, H), "float32"),
            matrices: R.Tensor((VOCABULARY, H, H), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                v = R.take(embedding, word, axis=0)
                M = R.take(matrices, word, axis=0)
                R.output(v, M)
            return v, M

        @R.function
        def internal(
            v_l: R.Tensor((H,), "float32"),
            M_l: R.Tensor((H, H), "float32"),
            v_r: R.Tensor((H,), "float32"),
            M_r: R.Tensor((H, H), "float32"),
            W_v: R.Tensor((2 * H, H), "float32"),
            b: R.Tensor((H,), "float32"),
            W_M: R.Tensor((H, 2 * H), "float32"),
            b_M: R.Tensor((H, H), "float32"),
        ):
            R.func_attr({"num_input": 4})
            with R.dataflow():
                crossed = R.concat((R.matmul(M_l, v_r), R.matmul(M_r, v_l)))
                v = R.tanh(R.matmul(crossed, W_v) + b)
                M = R.matmul(W_M, R.concat((M_l, M_r), axis=0)) + b_M
                R.output(v, M)
            return v, M

        @R.function
        def readout(
            v: R.Tensor((H,), "float32"),
            W_out: R.Tensor((H, CLASSES), "float32"),
            b_out: R.Tensor((CLASSES,), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                logits = R.matmul(v, W_out) + b_out
                R.output(logits)
            return logits

    return MVRNN
