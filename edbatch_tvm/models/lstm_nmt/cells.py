"""Cells of an LSTM encoder and decoder for translation."""

# TVMScript annotates parameters with calls and indexes modules, which no type checker follows.
# mypy: disable-error-code="valid-type,no-untyped-def,misc"

from __future__ import annotations

from typing import Any

from tvm.script import ir as I
from tvm.script import relax as R

from edbatch_tvm.models.renaming import module_of, renamed, suffixed
from edbatch_tvm.models.vocabulary import VOCABULARY

EMBEDDING_WEIGHTS = ("embedding", "W_e", "b_e")
STEP_WEIGHTS = ("W_i", "W_f", "W_o", "W_g", "b_i", "b_f", "b_o", "b_g")


def cells(hidden: int) -> Any:
    """Module of the cells ``source``, ``encoder``, ``target``, ``decoder`` and ``readout``.

    ================ ==============================================================================
    source, target   x = tanh(W_e e + b_e) of the word's embedding e, each language its own
    encoder, decoder an LSTM of [x; h] and c with a matrix of its own for each of its four gates
    readout          256 logits of h, one a word
    ================ ==============================================================================
    """
    H = hidden

    @I.ir_module
    class Translator:
        @R.function
        def embed(
            word: R.Tensor((), "int32"),
            embedding: R.Tensor((VOCABULARY, H), "float32"),
            W_e: R.Tensor((H, H), "float32"),
            b_e: R.Tensor((H,), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                x = R.tanh(R.matmul(R.take(embedding, word, axis=0), W_e) + b_e)
                R.output(x)
            return x

        @R.function
        def step(
            x: R.Tensor((H,), "float32"),
            h: R.Tensor((H,), "float32"),
            c: R.Tensor((H,), "float32"),
            W_i: R.Tensor((2 * H, H), "float32"),
            W_f: R.Tensor((2 * H, H), "float32"),
            W_o: R.Tensor((2 * H, H), "float32"),
            W_g: R.Tensor((2 * H, H), "float32"),
            b_i: R.Tensor((H,), "float32"),
            b_f: R.Tensor((H,), "float32"),
            b_o: R.Tensor((H,), "float32"),
            b_g: R.Tensor((H,), "float32"),
        ):
            R.func_attr({"num_input": 3})
            with R.dataflow():
                xh = R.concat((x, h))
                i = R.sigmoid(R.matmul(xh, W_i) + b_i)
                f = R.sigmoid(R.matmul(xh, W_f) + b_f)
                o = R.sigmoid(R.matmul(xh, W_o) + b_o)
                g = R.tanh(R.matmul(xh, W_g) + b_g)
                c_next = f * c + i * g
                h_next = o * R.tanh(c_next)
                R.output(h_next, c_next)
            return h_next, c_next

        @R.function
        def readout(
            h: R.Tensor((H,), "float32"),
            W_out: R.Tensor((H, VOCABULARY), "float32"),
            b_out: R.Tensor((VOCABULARY,), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                logits = R.matmul(h, W_out) + b_out
                R.output(logits)
            return logits

    return module_of(
        {
            "source": renamed(Translator["embed"], suffixed("source", *EMBEDDING_WEIGHTS)),
            "encoder": renamed(Translator["step"], suffixed("encoder", *STEP_WEIGHTS)),
            "target": renamed(Translator["embed"], suffixed("target", *EMBEDDING_WEIGHTS)),
            "decoder": renamed(Translator["step"], suffixed("decoder", *STEP_WEIGHTS)),
            "readout": Translator["readout"],
        }
    )
