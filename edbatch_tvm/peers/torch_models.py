"""The cells of each workload on PyTorch, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from edbatch_tvm.models.bilstm_tagger_char.cells import DIRECTIONS
from edbatch_tvm.models.lattice_gru.cells import arc_names
from edbatch_tvm.peers.torch_cells import (
    Out,
    TorchCell,
    Weights,
    constant,
    embedding,
    lookup_lstm,
    lstm,
    mixed,
    readout,
    readout_of_two,
    step_lstm,
)

# Trees ----------------------------------------------------------------------------------------------------------------


def _tree_state(iou: Tensor, kept: Tensor | None, out: Out) -> tuple[Tensor, Tensor]:
    """(h, c) from the gates i, o, u and what is kept of the parts' memories."""
    size = iou.shape[1] // 3
    i, o = iou[:, : 2 * size].sigmoid_().chunk(2, 1)
    u = iou[:, 2 * size :].tanh_()
    c = torch.mul(i, u, out=out[1]) if kept is None else torch.addcmul(kept, i, u, out=out[1])
    return torch.mul(o, torch.tanh(c), out=out[0]), c


def tree_leaf() -> TorchCell:
    """The state of a word."""

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        return _tree_state(torch.addmm(w[2], ahead, w[1]), None, out)

    names = ("embedding", "W_leaf", "b_leaf")
    return TorchCell((), step, lambda w: [w[name] for name in names], lambda w, words: w[0].index_select(0, words[0]))


def tree_internal(suffix: str = "") -> TorchCell:
    """One product for all five gates; the forget gates do not read the other part, so a fifth of it is zeros."""

    def prepare(w: Weights) -> Any:
        iou, f1, f2 = (w[f"{name}{suffix}"] for name in ("U_iou", "U_f1", "U_f2"))
        size = len(f1)
        zero = torch.zeros_like(f1)
        i, o, u = iou.split(size, 1)
        matrix = torch.cat((i, o, torch.cat((f1, zero)), torch.cat((zero, f2)), u), 1)
        b_i, b_o, b_u = w[f"b_iou{suffix}"].split(size)
        b_f = w[f"b_f{suffix}"]
        return matrix.contiguous(), torch.cat((b_i, b_o, b_f, b_f, b_u))

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        rows = groups[0].flatten(1)
        size = rows.shape[1] // 4
        gates = torch.addmm(w[1], rows[:, : 2 * size], w[0])
        i, o, f1, f2 = gates[:, : 4 * size].sigmoid_().chunk(4, 1)
        u = gates[:, 4 * size :].tanh_()
        kept = torch.addcmul(f1 * rows[:, 2 * size : 3 * size], f2, rows[:, 3 * size :])
        c = torch.addcmul(kept, i, u, out=out[1])
        return torch.mul(o, torch.tanh(c), out=out[0]), c

    return TorchCell((("h1", "h2", "c1", "c2"),), step, prepare)


def childsum_internal() -> TorchCell:
    """Children of every node in one product; sums by bags of rows."""

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        hs, cs = groups
        h = hs.all()
        kept = torch.addmm(w[3], h, w[2]).sigmoid_().mul_(cs.all())
        iou = torch.addmm(w[1], hs.reduced_of(h, "sum"), w[0])
        return _tree_state(iou, hs.reduced_of(kept, "sum"), out)

    names = ("U_iou", "b_iou", "U_f", "b_f")
    return TorchCell((("hs",), ("cs",)), step, lambda w: [w[name] for name in names])


def gru_leaf() -> TorchCell:
    """The state of a word."""

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        r, z = torch.addmm(w[2], ahead, w[1]).sigmoid_().chunk(2, 1)
        return (mixed(z, ahead, torch.addmm(w[4], r * ahead, w[3]).tanh_(), out[0]),)

    names = ("embedding", "U_leaf", "b_leaf", "U_leaf_c", "b_leaf_c")
    return TorchCell((), step, lambda w: [w[name] for name in names], lambda w, words: w[0].index_select(0, words[0]))


def gru_internal() -> TorchCell:
    """Both parts in one batched product."""

    def prepare(w: Weights) -> Any:
        return torch.stack((w["U_1"], w["U_2"])), w["b"], torch.stack((w["U_c1"], w["U_c2"])), w["b_c"]

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        h = groups[0].transpose(0, 1)
        r, z = torch.baddbmm(w[1], h, w[0]).sigmoid_().chunk(2, 2)
        both = mixed(z, h, torch.baddbmm(w[3], r * h, w[2]).tanh_())
        return (torch.lerp(both[0], both[1], 0.5, out=out[0]),)

    return TorchCell((("h1", "h2"),), step, prepare)


def matrix_leaf() -> TorchCell:
    """Matrices are kept transposed, so that a product with ``W_M`` is one for all nodes."""

    def ahead(w: Any, words: list[Tensor]) -> Any:
        return w[0].index_select(0, words[0]), w[1].index_select(0, words[0])

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        return tuple(row if to is None else to.copy_(row) for row, to in zip(ahead, out, strict=True))

    return TorchCell((), step, lambda w: (w["embedding"], w["matrices"].transpose(1, 2).contiguous()), ahead)


def matrix_internal() -> TorchCell:
    """Two batched products of matrix and vector, then one product for all vectors, two for all matrices."""

    def prepare(w: Weights) -> Any:
        left, right = w["W_M"].T.chunk(2, 0)
        return w["W_v"], w["b"], left.contiguous(), right.contiguous(), w["b_M"].T.contiguous()

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        vectors, left, right = groups[0], groups[1].squeeze(1), groups[2].squeeze(1)
        n, size, _ = left.shape
        crossed = torch.cat((torch.bmm(vectors[:, 1:], left), torch.bmm(vectors[:, :1], right)), 2).squeeze(1)
        v = torch.tanh(torch.addmm(w[1], crossed, w[0]), out=out[0])
        flat = None if out[1] is None else out[1].view(n * size, size)
        matrix = torch.mm(left.reshape(n * size, size), w[2], out=flat)
        matrix.addmm_(right.reshape(n * size, size), w[3])
        return v, matrix.view(n, size, size).add_(w[4])

    return TorchCell((("v_l", "v_r"), ("M_l",), ("M_r",)), step, prepare)


# Lattices, grids, DAGs ------------------------------------------------------------------------------------------------


def gru_arc(kind: str) -> TorchCell:
    """A GRU on an embedding: its products with the input are computed ahead."""
    names = arc_names(kind)

    def prepare(w: Weights) -> Any:
        table, U, W, b, U_c, W_c, b_c = (w[names[key]] for key in ("embedding", "U", "W", "b", "U_c", "W_c", "b_c"))
        return table, torch.cat((W, W_c), 1), torch.cat((b, b_c)), U, U_c

    def ahead(w: Any, labels: list[Tensor]) -> Tensor:
        return torch.addmm(w[2], w[0].index_select(0, labels[0]), w[1])

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        h = groups[0].flatten(1)
        size = h.shape[1]
        r, z = torch.addmm(ahead[:, : 2 * size], h, w[3]).sigmoid_().chunk(2, 1)
        return (mixed(z, h, torch.addmm(ahead[:, 2 * size :], r * h, w[4]).tanh_(), out[0]),)

    return TorchCell((("h",),), step, prepare, ahead)


def join(mode: str, *operands: str) -> TorchCell:
    """Sum or mean of each operand."""

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        reduced = [rows.reduced(mode) for rows in groups]
        return tuple(row if to is None else to.copy_(row) for row, to in zip(reduced, out, strict=True))

    return TorchCell(tuple((name,) for name in operands), step, lambda w: None)


def grid_edge(side: str) -> TorchCell:
    """The state that enters with a word."""

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        h, c = torch.addmm(w[2], ahead, w[1]).chunk(2, 1)
        return torch.tanh(h, out=out[0]), torch.tanh(c, out=out[1])

    names = [f"{name}_{side}" for name in ("embedding", "W", "b")]
    return TorchCell((), step, lambda w: [w[name] for name in names], lambda w, words: w[0].index_select(0, words[0]))


def grid_node() -> TorchCell:
    """One product for the gates of both LSTMs."""

    def prepare(w: Weights) -> Any:
        return torch.cat((w["W_1"], w["W_2"]), 1), torch.cat((w["b_1"], w["b_2"]))

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        rows = groups[0].flatten(1)
        size = rows.shape[1] // 4
        gates = torch.addmm(w[1], rows[:, : 2 * size], w[0])
        down = lstm(gates[:, : 4 * size], rows[:, 2 * size : 3 * size], out[:2])
        return (*down, *lstm(gates[:, 4 * size :], rows[:, 3 * size :], out[2:]))

    return TorchCell((("h1", "h2", "c1", "c2"),), step, prepare)


def dag_dense() -> TorchCell:
    """A layer on the mean."""

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        return (torch.tanh(torch.addmm(w[1], groups[0].reduced("mean"), w[0]), out=out[0]),)

    return TorchCell((("hs",),), step, lambda w: (w["W_dense"], w["b_dense"]))


def dag_gated() -> TorchCell:
    """The mean, mixed with a layer on it."""

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        s = groups[0].reduced("mean")
        z, c = torch.addmm(w[1], s, w[0]).chunk(2, 1)
        return (mixed(z.sigmoid(), s, c.tanh(), out[0]),)

    return TorchCell((("hs",),), step, lambda w: (w["U_gated"], w["b_gated"]))


def dag_weighted() -> TorchCell:
    """A layer on the mean of operands, each with gates of its own."""

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        hs = groups[0].all()
        s = groups[0].reduced_of((w[0] * hs).sigmoid_().mul_(hs), "mean")
        return (torch.tanh(torch.mm(s, w[1]), out=out[0]),)

    return TorchCell((("hs",),), step, lambda w: (w["v_weighted"], w["V_weighted"]))


def dag_largest() -> TorchCell:
    """The largest elements, scaled and shifted."""

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        return (torch.tanh(torch.addcmul(w[1], w[0], groups[0].reduced("max")), out=out[0]),)

    return TorchCell((("hs",),), step, lambda w: (w["a_largest"], w["b_largest"]))


# Sequences ------------------------------------------------------------------------------------------------------------


def dense_embedding(side: str) -> TorchCell:
    """``tanh(W e + b)`` of an embedding."""

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        return (torch.tanh(torch.addmm(w[2], ahead, w[1]), out=out[0]),)

    names = [f"{name}_{side}" for name in ("embedding", "W_e", "b_e")]
    return TorchCell((), step, lambda w: [w[name] for name in names], lambda w, words: w[0].index_select(0, words[0]))


def fused_step_lstm(side: str) -> TorchCell:
    """An LSTM whose gates have matrices of their own, fused."""

    def prepare(w: Weights) -> Any:
        return tuple(torch.cat([w[f"{kind}_{gate}_{side}"] for gate in "ifog"], -1) for kind in "Wb")

    return TorchCell((("x", "h", "c"),), step_lstm("", "").step, prepare)


def tag() -> TorchCell:
    """Logits of a token from both directions."""

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        return (torch.mm(torch.mm(groups[0].flatten(1), w[0]).tanh_(), w[1], out=out[0]),)

    return TorchCell((("forward", "backward"),), step, lambda w: (w["T_tag"], w["O_tag"]))


def spell() -> TorchCell:
    """A rare word."""

    def step(w: Any, ahead: Any, groups: list[Any], out: Out) -> tuple[Tensor, ...]:
        row = groups[0].flatten(1)
        return (row if out[0] is None else out[0].copy_(row),)

    return TorchCell((("forward", "backward"),), step, lambda w: None)


# Workloads ------------------------------------------------------------------------------------------------------------


def _trees(**internal: TorchCell) -> dict[str, TorchCell]:
    return {"leaf": tree_leaf(), **internal, "readout": readout("h")}


def _lattice(arc: Callable[[str], TorchCell], start: TorchCell, joined: TorchCell) -> dict[str, TorchCell]:
    cells = {"start": start, "char_arc": arc("char"), "word_arc": arc("word"), "join": joined}
    return {**cells, "readout": readout("h")}


def _layers(second: Callable[[str, str], TorchCell], first: Callable[[str], TorchCell]) -> dict[str, TorchCell]:
    cells = {}
    for side in DIRECTIONS:
        cells[f"{side}_layer1"] = first(side)
        cells[f"{side}_layer2"] = second(f"W_{side}2", f"b_{side}2")
    return cells


def _spelling() -> dict[str, TorchCell]:
    cells = {"word": embedding("embedding"), "spell": spell(), "tag": tag()}
    for side in DIRECTIONS:
        name = f"char_{side}"
        cells[f"{name}_layer1"] = lookup_lstm(f"W_{name}1", f"b_{name}1", "char_embedding")
        cells[f"{name}_layer2"] = step_lstm(f"W_{name}2", f"b_{name}2")
    return cells | _layers(step_lstm, lambda side: step_lstm(f"W_{side}1", f"b_{side}1"))


MODELS: Mapping[str, Callable[[], dict[str, TorchCell]]] = {
    "treelstm": lambda: _trees(internal=tree_internal()),
    "treelstm-2type": lambda: _trees(internal_a=tree_internal("_a"), internal_b=tree_internal("_b")),
    "childsum-tree": lambda: _trees(internal=childsum_internal()),
    "treegru": lambda: {"leaf": gru_leaf(), "internal": gru_internal(), "readout": readout("h")},
    "mvrnn": lambda: {"leaf": matrix_leaf(), "internal": matrix_internal(), "readout": readout("v")},
    "lattice-lstm": lambda: _lattice(
        lambda kind: lookup_lstm(f"W_{kind}", f"b_{kind}", f"{kind}_embedding"),
        constant("h_start", "c_start"),
        join("sum", "hs", "cs"),
    ),
    "lattice-gru": lambda: _lattice(gru_arc, constant("h_start"), join("mean", "hs")),
    "bilstm-tagger": lambda: (
        _layers(step_lstm, lambda side: lookup_lstm(f"W_{side}1", f"b_{side}1", "embedding")) | {"tag": tag()}
    ),
    "bilstm-tagger-char": _spelling,
    "lstm-nmt": lambda: {
        "source": dense_embedding("source"),
        "encoder": fused_step_lstm("encoder"),
        "target": dense_embedding("target"),
        "decoder": fused_step_lstm("decoder"),
        "readout": readout("h"),
    },
    "grid-lstm": lambda: {
        "source": grid_edge("source"),
        "target": grid_edge("target"),
        "grid": grid_node(),
        "readout": readout_of_two("h1", "h2"),
    },
    "random-dag": lambda: {
        "input": embedding("embedding"),
        "dense": dag_dense(),
        "gated": dag_gated(),
        "weighted": dag_weighted(),
        "largest": dag_largest(),
        "readout": readout("h"),
    },
}
"""Cells of each workload."""
