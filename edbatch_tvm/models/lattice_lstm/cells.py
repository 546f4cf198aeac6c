"""Cells of a lattice LSTM over characters and words (after Zhang and Yang, ACL 2018)."""

# TVMScript annotates parameters with calls, which no type checker follows.
# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

from typing import Any

from tvm.script import ir as I
from tvm.script import relax as R

from edbatch_tvm.models import lstm
from edbatch_tvm.models.vocabulary import VOCABULARY

CLASSES = 64


def cells(hidden: int) -> Any:
    """Module of the cells ``start``, ``char_arc``, ``word_arc``, ``join`` and ``readout``.

    ======== ========================================================================
    start    the learned state of a sentence's first node
    .._arc   an LSTM on the embedding of the arc's label and the state of its source
    join     sums of the states of two or more arcs into one node
    readout  64 logits of h
    ======== ========================================================================
    """
    H = hidden

    @I.ir_module
    class LatticeLSTM:
        @R.function
        def start(h_start: R.Tensor((H,), "float32"), c_start: R.Tensor((H,), "float32")):
            R.func_attr({"num_input": 0})
            return h_start, c_start

        @R.function
        def char_arc(
            h: R.Tensor((H,), "float32"),
            c: R.Tensor((H,), "float32"),
            char: R.Tensor((), "int32"),
            char_embedding: R.Tensor((VOCABULARY, H), "float32"),
            W_char: R.Tensor((2 * H, 4 * H), "float32"),
            b_char: R.Tensor((4 * H,), "float32"),
        ):
            R.func_attr({"num_input": 3})
            with R.dataflow():
                ifog = lstm.gates(R.take(char_embedding, char, axis=0), h, W_char, b_char)
                c_next = lstm.memory(ifog, c)
                h_next = lstm.hidden(ifog, c_next)
                R.output(h_next, c_next)
            return h_next, c_next

        @R.function
        def word_arc(
            h: R.Tensor((H,), "float32"),
            c: R.Tensor((H,), "float32"),
            word: R.Tensor((), "int32"),
            word_embedding: R.Tensor((VOCABULARY, H), "float32"),
            W_word: R.Tensor((2 * H, 4 * H), "float32"),
            b_word: R.Tensor((4 * H,), "float32"),
        ):
            R.func_attr({"num_input": 3})
            with R.dataflow():
                ifog = lstm.gates(R.take(word_embedding, word, axis=0), h, W_word, b_word)
                c_next = lstm.memory(ifog, c)
                h_next = lstm.hidden(ifog, c_next)
                R.output(h_next, c_next)
            return h_next, c_next

        @R.function
        def join(hs: R.Tensor(("k", H), "float32"), cs: R.Tensor(("k", H), "float32")):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                h = R.sum(hs, axis=0)
                c = R.sum(cs, axis=0)
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

    return LatticeLSTM
