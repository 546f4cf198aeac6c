"""Cells of the sequence tagger: two stacked LSTMs in each direction and a tag layer."""

# TVMScript annotates parameters with calls, which no type checker follows.
# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

from typing import Any

from tvm.script import ir as I
from tvm.script import relax as R

from edbatch_tvm.models import lstm
from edbatch_tvm.models.vocabulary import VOCABULARY

TAGS = 9
"""Entity tags of WikiNER."""


def cells(hidden: int) -> Any:
    """Module of the cells ``{forward,backward}_layer{1,2}`` and ``tag``; embedding and hidden size are equal.

    =========== =======================================================================
    .._layer1   an LSTM that reads the word's embedding
    .._layer2   an LSTM that reads the h of layer 1 of its own direction
    tag         9 logits, O tanh(T [forward; backward])
    =========== =======================================================================
    """
    H = hidden

    @I.ir_module
    class BiLSTMTagger:
        @R.function
        def forward_layer1(
            h: R.Tensor((H,), "float32"),
            c: R.Tensor((H,), "float32"),
            word: R.Tensor((), "int32"),
            embedding: R.Tensor((VOCABULARY, H), "float32"),
            W_forward1: R.Tensor((2 * H, 4 * H), "float32"),
            b_forward1: R.Tensor((4 * H,), "float32"),
        ):
            R.func_attr({"num_input": 3})
            with R.dataflow():
                ifog = lstm.gates(R.take(embedding, word, axis=0), h, W_forward1, b_forward1)
                c_next = lstm.memory(ifog, c)
                h_next = lstm.hidden(ifog, c_next)
                R.output(h_next, c_next)
            return h_next, c_next

        @R.function
        def forward_layer2(
            x: R.Tensor((H,), "float32"),
            h: R.Tensor((H,), "float32"),
            c: R.Tensor((H,), "float32"),
            W_forward2: R.Tensor((2 * H, 4 * H), "float32"),
            b_forward2: R.Tensor((4 * H,), "float32"),
        ):
            R.func_attr({"num_input": 3})
            with R.dataflow():
                ifog = lstm.gates(x, h, W_forward2, b_forward2)
                c_next = lstm.memory(ifog, c)
                h_next = lstm.hidden(ifog, c_next)
                R.output(h_next, c_next)
            return h_next, c_next

        @R.function
        def backward_layer1(
            h: R.Tensor((H,), "float32"),
            c: R.Tensor((H,), "float32"),
            word: R.Tensor((), "int32"),
            embedding: R.Tensor((VOCABULARY, H), "float32"),
            W_backward1: R.Tensor((2 * H, 4 * H), "float32"),
            b_backward1: R.Tensor((4 * H,), "float32"),
        ):
            R.func_attr({"num_input": 3})
            with R.dataflow():
                ifog = lstm.gates(R.take(embedding, word, axis=0), h, W_backward1, b_backward1)
                c_next = lstm.memory(ifog, c)
                h_next = lstm.hidden(ifog, c_next)
                R.output(h_next, c_next)
            return h_next, c_next

        @R.function
        def backward_layer2(
            x: R.Tensor((H,), "float32"),
            h: R.Tensor((H,), "float32"),
            c: R.Tensor((H,), "float32"),
            W_backward2: R.Tensor((2 * H, 4 * H), "float32"),
            b_backward2: R.Tensor((4 * H,), "float32"),
        ):
            R.func_attr({"num_input": 3})
            with R.dataflow():
                ifog = lstm.gates(x, h, W_backward2, b_backward2)
                c_next = lstm.memory(ifog, c)
                h_next = lstm.hidden(ifog, c_next)
                R.output(h_next, c_next)
            return h_next, c_next

        @R.function
        def tag(
            forward: R.Tensor((H,), "float32"),
            backward: R.Tensor((H,), "float32"),
            T_tag: R.Tensor((2 * H, H), "float32"),
            O_tag: R.Tensor((H, TAGS), "float32"),
        ):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                logits = R.matmul(R.tanh(R.matmul(R.concat((forward, backward)), T_tag)), O_tag)
                R.output(logits)
            return logits

    return BiLSTMTagger
