"""The references of the other sequence, lattice, grid and DAG workloads against torch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edbatch_tvm.graph import Builder
from edbatch_tvm.models.bilstm_tagger_char.build import PAD, spelled_sentence_graph
from edbatch_tvm.models.grid_lstm.build import grid_graph
from edbatch_tvm.models.lattice_lstm.build import lattice_graph
from edbatch_tvm.models.lstm_nmt.build import START, translation_graph
from edbatch_tvm.models.random_dag.build import dag_graph
from tests.models.conftest import HIDDEN, case
from tests.models.torch_models import outputs, tensors, torch_lstm

torch = pytest.importorskip("torch")


def two_layers(w: dict[str, Any], name: str, x: Any) -> Any:
    """States of the upper of two LSTM layers over the rows of `x`."""
    for layer in (1, 2):
        width = x.shape[1]
        module = torch.nn.LSTM(width, w[f"b_{name}{layer}"].shape[0] // 4).double()
        hidden = module.hidden_size
        order = torch.cat([torch.arange(hidden) + gate * hidden for gate in (0, 1, 3, 2)])
        matrix, bias = w[f"W_{name}{layer}"][:, order], w[f"b_{name}{layer}"][order]
        state = {
            "weight_ih_l0": matrix[:width].T,
            "weight_hh_l0": matrix[width:].T,
            "bias_ih_l0": bias,
            "bias_hh_l0": torch.zeros_like(bias),
        }
        module.load_state_dict(state)
        x = module(x)[0].detach()
    return x


@pytest.mark.parametrize("tokens", [[9, (1, 2, 3), 0, (255,), 9], [(4, 4)], [8]])
def test_bilstm_tagger_char_equals_torch(tokens: list[Any]) -> None:
    found = case("bilstm-tagger-char")
    w = tensors(found)

    def vector(token: Any) -> Any:
        if isinstance(token, int):
            return w["embedding"][token]
        x = w["char_embedding"][[PAD, *token, PAD]]
        forward, backward = two_layers(w, "char_forward", x), two_layers(w, "char_backward", x.flip(0))
        return torch.cat([forward[-1], backward[-1]])

    x = torch.stack([vector(token) for token in tokens])
    both = torch.cat([two_layers(w, "forward", x), two_layers(w, "backward", x.flip(0)).flip(0)], dim=1)
    expected = torch.tanh(both @ w["T_tag"]) @ w["O_tag"]
    graph = spelled_sentence_graph(Builder(found.signature), tokens)
    np.testing.assert_allclose(outputs(found, graph), expected, rtol=1e-10)


def test_lstm_nmt_equals_torch() -> None:
    found = case("lstm-nmt")
    w = tensors(found)

    def run(side: str, language: str, words: list[int], state: Any) -> list[Any]:
        states = []
        fused = {
            "W": torch.cat([w[f"W_{gate}_{side}"] for gate in "ifog"], dim=1),
            "b": torch.cat([w[f"b_{gate}_{side}"] for gate in "ifog"]),
        }
        cell = torch_lstm(fused, [("W", "b")], lambda hidden: torch.nn.LSTMCell(hidden, hidden))
        for word in words:
            x = torch.tanh(w[f"embedding_{language}"][word] @ w[f"W_e_{language}"] + w[f"b_e_{language}"])
            state = cell(x, state)
            states.append(state)
        return states

    source, target = [9, 255, 0, 9, 31], [4, 4, 200]
    encoded = run("encoder", "source", source, None)
    decoded = run("decoder", "target", [START, *target[:-1]], encoded[-1])
    expected = torch.stack([h @ w["W_out"] + w["b_out"] for h, _ in decoded])
    assert expected.shape == (3, 256)
    graph = translation_graph(Builder(found.signature), (source, target))
    np.testing.assert_allclose(outputs(found, graph), expected.detach(), rtol=1e-10)


def test_lattice_gru_equals_torch() -> None:
    found = case("lattice-gru")
    w = tensors(found)

    def arc(kind: str, label: int, h: Any) -> Any:
        x = w[f"{kind}_embedding"][label]
        pre = torch.cat([h, x]) @ torch.cat([w[f"U_{kind}"], w[f"W_{kind}"]]) + w[f"b_{kind}"]
        r, z = torch.sigmoid(pre).split(HIDDEN)
        pre = torch.cat([r * h, x]) @ torch.cat([w[f"U_c_{kind}"], w[f"W_c_{kind}"]]) + w[f"b_c_{kind}"]
        return torch.lerp(torch.tanh(pre), h, z)

    incoming = [[], [(0, 5)], [(1, 6), (0, 200)], [(2, 7)], [(3, 8), (2, 1), (0, 2)]]
    states = [w["h_start"]]
    for node, arcs in list(enumerate(incoming))[1:]:
        ends = [arc("char" if source == node - 1 else "word", label, states[source]) for source, label in arcs]
        states.append(torch.stack(ends).mean(dim=0))
    expected = torch.stack([h @ w["W_out"] + w["b_out"] for h in states])
    graph = lattice_graph(Builder(found.signature), incoming)
    np.testing.assert_allclose(outputs(found, graph), expected, rtol=1e-10)
    assert graph.type_count.tolist() == [1, 4, 3, 2, 5]


def test_grid_lstm_equals_torch() -> None:
    found = case("grid-lstm")
    w = tensors(found)
    source, target = [3, 1, 4], [1, 5]

    def edge(language: str, word: int) -> Any:
        return torch.tanh(w[f"embedding_{language}"][word] @ w[f"W_{language}"] + w[f"b_{language}"]).chunk(2)

    cells = [torch_lstm(w, [(f"W_{k}", f"b_{k}")], lambda hidden: torch.nn.LSTMCell(hidden, hidden)) for k in (1, 2)]
    down = {(-1, column): edge("target", word) for column, word in enumerate(target)}
    right = {(row, -1): edge("source", word) for row, word in enumerate(source)}
    for row in range(len(source)):
        for column in range(len(target)):
            (h1, c1), (h2, c2) = down[row - 1, column], right[row, column - 1]
            # Both read [h1; h2]: h1 is the input of a torch cell, h2 its hidden state.
            down[row, column] = cells[0](h1, (h2, c1))
            right[row, column] = cells[1](h1, (h2, c2))
    last = len(source) - 1
    both = [torch.cat([down[last, column][0], right[last, column][0]]) for column in range(len(target))]
    expected = torch.stack(both) @ w["W_out"] + w["b_out"]
    graph = grid_graph(Builder(found.signature), (source, target))
    np.testing.assert_allclose(outputs(found, graph), expected.detach(), rtol=1e-10)


def test_random_dag_equals_torch() -> None:
    found = case("random-dag")
    w = tensors(found)
    nodes: list[Any] = [
        7, 8, ("dense", (0, 1)), ("gated", (0,)), ("weighted", (1, 2, 3)), ("largest", (0, 3, 4, 2)), 9,
        ("largest", (6,)), ("dense", (4, 6)), ("gated", (2, 4)),
    ]  # fmt: skip

    def combined(cell: str, h: Any) -> Any:
        s = h.mean(dim=0)
        if cell == "dense":
            return torch.tanh(s @ w["W_dense"] + w["b_dense"])
        if cell == "gated":
            z, c = (s @ w["U_gated"] + w["b_gated"]).chunk(2)
            return torch.lerp(c.tanh(), s, z.sigmoid())
        if cell == "weighted":
            return torch.tanh((h * (w["v_weighted"] * h).sigmoid()).mean(dim=0) @ w["V_weighted"])
        return torch.tanh(w["a_largest"] * h.amax(dim=0) + w["b_largest"])

    values: list[Any] = []
    for node in nodes:
        if isinstance(node, int):
            values.append(w["embedding"][node])
        else:
            values.append(combined(node[0], torch.stack([values[operand] for operand in node[1]])))
    expected = torch.stack([values[sink] @ w["W_out"] + w["b_out"] for sink in (5, 7, 8, 9)])
    graph = dag_graph(Builder(found.signature), nodes)
    assert graph.type_count.tolist() == [3, 2, 2, 1, 2, 4]
    np.testing.assert_allclose(outputs(found, graph), expected, rtol=1e-10)
