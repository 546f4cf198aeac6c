"""Cells of a lattice GRU over characters and words: that of ``lattice-lstm`` with another arc."""

# TVMScript annotates parameters with calls and indexes modules, which no type checker follows.
# mypy: disable-error-code="valid-type,no-untyped-def,misc"

from __future__ import annotations

from typing import Any

from tvm.script import ir as I
from tvm.script import relax as R

from edbatch_tvm.models import gru, lattice_lstm
from edbatch_tvm.models.renaming import module_of, renamed
from edbatch_tvm.models.vocabulary import VOCABULARY


def arc_names(kind: str) -> dict[str, str]:
    """Parameter names of the arc cell of a `kind`, ``char`` or ``word``, by those of the equations."""
    weights = {name: f"{name}_{kind}" for name in ("U", "W", "b", "U_c", "W_c", "b_c")}
    return {"label": kind, "embedding": f"{kind}_embedding", **weights}


def cells(hidden: int) -> Any:
    """Module of the cells ``start``, ``char_arc``, ``word_arc``, ``join`` and ``readout``.

    ======== ==================================================================================================
    start    the learned state of a sentence's first node
    .._arc   of the label's embedding x and the state h of the source: r, z = sigmoid(U h + W x + b),
             c = tanh(U_c (r * h) + W_c x + b_c), h' = z * h + (1 - z) * c
    join     the mean of the states of two or more arcs into one node
    readout  64 logits of h
    ======== ==================================================================================================

    The join of ``lattice-lstm`` is a sum. Here h passes through z unbounded and through the gates' products, so that
    sums feed back on themselves: on real lattices h reached 1e12 to 1e16, where a comparison with float64 says little
    and fails for some seeds.
    """
    H = hidden

    @I.ir_module
    class LatticeGRU:
        @R.function
        def start(h_start: R.Tensor((H,), "float32")):
            R.func_attr({"num_input": 0})
            return h_start

        @R.function
        def arc(
            h: R.Tensor((H,), "float32"),
            label: R.Tensor((), "int32"),
            embedding: R.Tensor((VOCABULARY, H), "float32"),
            U: R.Tensor((H, 2 * H), "float32"),
            W: R.Tensor((H, 2 * H), "float32"),
            b: R.Tensor((2 * H,), "float32"),
            U_c: R.Tensor((H, H), "float32"),
            W_c: R.Tensor((H, H), "float32"),
            b_c: R.Tensor((H,), "float32"),
        ):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                x = R.take(embedding, label, axis=0)
                rz = R.split(R.sigmoid(R.matmul(h, U) + R.matmul(x, W) + b), 2)
                c = R.tanh(R.matmul(rz[0] * h, U_c) + R.matmul(x, W_c) + b_c)
                h_next = gru.mixed(rz[1], h, c)
                R.output(h_next)
            return h_next

        @R.function
        def join(hs: R.Tensor(("k", H), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                h = R.mean(hs, axis=0)
                R.output(h)
            return h

    return module_of(
        {
            "start": LatticeGRU["start"],
            "char_arc": renamed(LatticeGRU["arc"], arc_names("char")),
            "word_arc": renamed(LatticeGRU["arc"], arc_names("word")),
            "join": LatticeGRU["join"],
            "readout": lattice_lstm.WORKLOAD.cells(hidden)["readout"],
        }
    )
