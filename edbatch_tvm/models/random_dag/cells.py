"""Cells of random typed DAGs: an input, and four ways to combine any number of values."""

# TVMScript annotates parameters with calls, which no type checker follows.
# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

from typing import Any

from tvm.script import ir as I
from tvm.script import relax as R

from edbatch_tvm.models import gru
from edbatch_tvm.models.vocabulary import VOCABULARY

CLASSES = 8


def cells(hidden: int) -> Any:
    """Module of the cells ``input``, ``dense``, ``gated``, ``weighted``, ``largest`` and ``readout``.

    With s the mean of the operands h_k:

    ======== ======================================================================
    input    the embedding of a word
    dense    h = tanh(W s + b)
    gated    z = sigmoid(U s + b), h = z * s + (1 - z) * tanh(U' s + b')
    weighted h = tanh(V mean_k (sigmoid(v * h_k) * h_k))
    largest  h = tanh(a * max_k h_k + b)
    readout  8 logits of h
    ======== ======================================================================
    """
    H = hidden

    @I.ir_module
    class RandomDag:
        @R.function
        def input(word: R.Tensor((), "int32"), embedding: R.Tensor((VOCABULARY, H), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                h = R.take(embedding, word, axis=0)
                R.output(h)
            return h

        @R.function
        def dense(
            hs: R.Tensor(("k", H), "float32"),
            W_dense: R.Tensor((H, H), "float32"),
            b_dense: R.Tensor((H,), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                h = R.tanh(R.matmul(R.mean(hs, axis=0), W_dense) + b_dense)
                R.output(h)
            return h

        @R.function
        def gated(
            hs: R.Tensor(("k", H), "float32"),
            U_gated: R.Tensor((H, 2 * H), "float32"),
            b_gated: R.Tensor((2 * H,), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                s = R.mean(hs, axis=0)
                zc = R.split(R.matmul(s, U_gated) + b_gated, 2)
                h = gru.mixed(R.sigmoid(zc[0]), s, R.tanh(zc[1]))
                R.output(h)
            return h

        @R.function
        def weighted(
            hs: R.Tensor(("k", H), "float32"),
            v_weighted: R.Tensor((H,), "float32"),
            V_weighted: R.Tensor((H, H), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                s = R.mean(R.sigmoid(v_weighted * hs) * hs, axis=0)
                h = R.tanh(R.matmul(s, V_weighted))
                R.output(h)
            return h

        @R.function
        def largest(
            hs: R.Tensor(("k", H), "float32"),
            a_largest: R.Tensor((H,), "float32"),
            b_largest: R.Tensor((H,), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                h = R.tanh(a_largest * R.max(hs, axis=0) + b_largest)
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

    return RandomDag
