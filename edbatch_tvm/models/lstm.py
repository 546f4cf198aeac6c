"""The LSTM equations on Relax expressions, for cells that are LSTMs with weights of their own; and whole LSTM cells.

The equations are plain functions that TVMScript calls while it parses a cell: the cell reads as if their bodies stood
in it. The cells are for models that have several LSTMs; see :func:`edbatch_tvm.models.renaming.renamed`.
"""

# TVMScript annotates parameters with calls and indexes modules, which no type checker follows.
# mypy: disable-error-code="valid-type,no-untyped-def,misc"

from __future__ import annotations

from typing import Any

from tvm.script import ir as I
from tvm.script import relax as R


def gates(x: Any, h: Any, weight: Any, bias: Any) -> Any:
    """Pre-activations of the gates i, f, o, g: ``split([x; h] @ weight + bias)``, fused into one product."""
    return R.split(R.matmul(R.concat((x, h)), weight) + bias, 4)


def memory(ifog: Any, c: Any) -> Any:
    """Next memory: ``sigmoid(f) * c + sigmoid(i) * tanh(g)``."""
    return R.sigmoid(ifog[1]) * c + R.sigmoid(ifog[0]) * R.tanh(ifog[3])


def hidden(ifog: Any, c: Any) -> Any:
    """Next hidden state: ``sigmoid(o) * tanh(c)``, with `c` the next memory."""
    return R.sigmoid(ifog[2]) * R.tanh(c)


def lookup_cell(rows: int, width: int, hidden_size: int) -> Any:
    """The cell ``(h, c, word) -> (h, c)``: an LSTM that reads the embedding of a word.

    Weights are ``embedding`` of `rows` rows and `width` columns, ``W`` and ``b``.
    """
    E, H = width, hidden_size

    @I.ir_module
    class Lookup:
        @R.function
        def lookup(
            h: R.Tensor((H,), "float32"),
            c: R.Tensor((H,), "float32"),
            word: R.Tensor((), "int32"),
            embedding: R.Tensor((rows, E), "float32"),
            W: R.Tensor((E + H, 4 * H), "float32"),
            b: R.Tensor((4 * H,), "float32"),
        ):
            R.func_attr({"num_input": 3})
            with R.dataflow():
                ifog = gates(R.take(embedding, word, axis=0), h, W, b)
                c_next = memory(ifog, c)
                h_next = hidden(ifog, c_next)
                R.output(h_next, c_next)
            return h_next, c_next

    return Lookup["lookup"]


def step_cell(width: int, hidden_size: int) -> Any:
    """The cell ``(x, h, c) -> (h, c)``: an LSTM that reads a value of `width` elements. Weights are ``W`` and ``b``."""
    E, H = width, hidden_size

    @I.ir_module
    class Step:
        @R.function
        def step(
            x: R.Tensor((E,), "float32"),
            h: R.Tensor((H,), "float32"),
            c: R.Tensor((H,), "float32"),
            W: R.Tensor((E + H, 4 * H), "float32"),
            b: R.Tensor((4 * H,), "float32"),
        ):
            R.func_attr({"num_input": 3})
            with R.dataflow():
                ifog = gates(x, h, W, b)
                c_next = memory(ifog, c)
                h_next = hidden(ifog, c_next)
                R.output(h_next, c_next)
            return h_next, c_next

    return Step["step"]
