"""Cells of a two-dimensional grid LSTM (Kalchbrenner, Danihelka and Graves, ICLR 2016)."""

# TVMScript annotates parameters with calls and indexes modules, which no type checker follows.
# mypy: disable-error-code="valid-type,no-untyped-def,misc"

from __future__ import annotations

from typing import Any

from tvm.script import ir as I
from tvm.script import relax as R

from edbatch_tvm.models import lstm
from edbatch_tvm.models.renaming import module_of, renamed, suffixed
from edbatch_tvm.models.vocabulary import VOCABULARY

EDGE_WEIGHTS = ("embedding", "W", "b")


def cells(hidden: int) -> Any:
    """Module of the cells ``source``, ``target``, ``grid`` and ``readout``.

    ============== ==========================================================================================
    source, target h, c = tanh(W e + b) of the word's embedding e: the states that enter at the two edges
    grid           two LSTMs, one a dimension, each with its own weights and its own c, that both read [h1; h2]
    readout        256 logits of [h1; h2], one a word
    ============== ==========================================================================================
    """
    H = hidden

    @I.ir_module
    class GridLSTM:
        @R.function
        def edge(
            word: R.Tensor((), "int32"),
            embedding: R.Tensor((VOCABULARY, H), "float32"),
            W: R.Tensor((H, 2 * H), "float32"),
            b: R.Tensor((2 * H,), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                hc = R.split(R.tanh(R.matmul(R.take(embedding, word, axis=0), W) + b), 2)
                h = hc[0]
                c = hc[1]
                R.output(h, c)
            return h, c

        @R.function
        def grid(
            h1: R.Tensor((H,), "float32"),
            c1: R.Tensor((H,), "float32"),
            h2: R.Tensor((H,), "float32"),
            c2: R.Tensor((H,), "float32"),
            W_1: R.Tensor((2 * H, 4 * H), "float32"),
            b_1: R.Tensor((4 * H,), "float32"),
            W_2: R.Tensor((2 * H, 4 * H), "float32"),
            b_2: R.Tensor((4 * H,), "float32"),
        ):
            R.func_attr({"num_input": 4})
            with R.dataflow():
                ifog1 = lstm.gates(h1, h2, W_1, b_1)
                ifog2 = lstm.gates(h1, h2, W_2, b_2)
                c1_next = lstm.memory(ifog1, c1)
                h1_next = lstm.hidden(ifog1, c1_next)
                c2_next = lstm.memory(ifog2, c2)
                h2_next = lstm.hidden(ifog2, c2_next)
                R.output(h1_next, c1_next, h2_next, c2_next)
            return h1_next, c1_next, h2_next, c2_next

        @R.function
        def readout(
            h1: R.Tensor((H,), "float32"),
            h2: R.Tensor((H,), "float32"),
            W_out: R.Tensor((2 * H, VOCABULARY), "float32"),
            b_out: R.Tensor((VOCABULARY,), "float32"),
        ):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                logits = R.matmul(R.concat((h1, h2)), W_out) + b_out
                R.output(logits)
            return logits

    return module_of(
        {
            "source": renamed(GridLSTM["edge"], suffixed("source", *EDGE_WEIGHTS)),
            "target": renamed(GridLSTM["edge"], suffixed("target", *EDGE_WEIGHTS)),
            "grid": GridLSTM["grid"],
            "readout": GridLSTM["readout"],
        }
    )
