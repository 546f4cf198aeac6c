"""The references against small torch models in float64, which share nothing with them, not even the graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edbatch_tvm.checking.reference import Function, run_reference
from edbatch_tvm.graph import Builder, CellSignature, Operand, Signature, ValueSpec
from edbatch_tvm.models.bilstm_tagger.build import sentence_graph
from edbatch_tvm.models.lattice_lstm.build import lattice_graph
from edbatch_tvm.models.treelstm.build import JOIN, tree_graph
from tests.models.conftest import Case
from tests.models.torch_models import outputs, tensors, torch_lstm

torch = pytest.importorskip("torch")


def test_treelstm_equals_torch(trees: Case) -> None:
    w = tensors(trees)
    logits = []

    def state(tree: Any) -> Any:
        if isinstance(tree, int):
            i, o, u = (w["embedding"][tree] @ w["W_leaf"] + w["b_leaf"]).chunk(3)
            c = torch.sigmoid(i) * torch.tanh(u)
        else:
            (h1, c1), (h2, c2) = map(state, tree)
            both = torch.cat([h1, h2])
            i, o, u = (torch.mv(w["U_iou"].T, both) + w["b_iou"]).chunk(3)
            f1 = torch.sigmoid(torch.mv(w["U_f1"].T, h1) + w["b_f"])
            f2 = torch.sigmoid(torch.mv(w["U_f2"].T, h2) + w["b_f"])
            c = torch.sigmoid(i) * torch.tanh(u) + f1 * c1 + f2 * c2
        h = torch.sigmoid(o) * torch.tanh(c)
        logits.append(torch.nn.functional.linear(h, w["W_out"].T, w["b_out"]))
        return h, c

    state(((3, 250), ((7, 7), 0)))
    graph = tree_graph(Builder(trees.signature), [3, 250, JOIN, 7, 7, JOIN, 0, JOIN, JOIN])
    np.testing.assert_allclose(outputs(trees, graph), torch.stack(logits), rtol=1e-10)


def test_bilstm_tagger_equals_torch(sentences: Case) -> None:
    w = tensors(sentences)
    words = [9, 255, 0, 9, 31]
    x = w["embedding"][words]
    directions = []
    for name, sequence in ("forward", x), ("backward", x.flip(0)):
        layers = [(f"W_{name}{layer}", f"b_{name}{layer}") for layer in (1, 2)]
        directions.append(torch_lstm(w, layers, lambda h: torch.nn.LSTM(h, h, num_layers=2))(sequence)[0])
    both = torch.cat([directions[0], directions[1].flip(0)], dim=1)
    expected = torch.tanh(both @ w["T_tag"]) @ w["O_tag"]
    graph = sentence_graph(Builder(sentences.signature), words)
    np.testing.assert_allclose(outputs(sentences, graph), expected.detach(), rtol=1e-10)


def test_lattice_lstm_equals_torch(lattices: Case) -> None:
    w = tensors(lattices)
    incoming = [[], [(0, 5)], [(1, 6), (0, 200)], [(2, 7)], [(3, 8), (2, 1), (0, 2)]]
    char = torch_lstm(w, [("W_char", "b_char")], lambda h: torch.nn.LSTMCell(h, h))
    word = torch_lstm(w, [("W_word", "b_word")], lambda h: torch.nn.LSTMCell(h, h))
    states = [(w["h_start"], w["c_start"])]
    for node, arcs in list(enumerate(incoming))[1:]:
        ends = [
            char(w["char_embedding"][label], states[source])
            if source == node - 1
            else word(w["word_embedding"][label], states[source])
            for source, label in arcs
        ]
        states.append(tuple(sum(parts) for parts in zip(*ends, strict=True)))
    expected = torch.stack([h @ w["W_out"] + w["b_out"] for h, _ in states])
    graph = lattice_graph(Builder(lattices.signature), incoming)
    np.testing.assert_allclose(outputs(lattices, graph), expected.detach(), rtol=1e-10)
    assert graph.type_count.tolist() == [1, 4, 3, 2, 5]  # start, char arcs, word arcs, joins, readouts


def test_variadic_operands_zero_states_and_external_rows() -> None:
    vector = ValueSpec((2,))
    total = CellSignature("total", (Operand("xs", vector, variadic=True),), (), (vector,))
    scale = CellSignature("scale", (Operand("x", vector),), (), (vector,))
    b = Builder(Signature([total, scale]))
    none = b.call("total", [])
    zero = b.call("scale", b.zero)
    row = b.call("scale", np.array([1, -2], np.float32))
    graph = b.finish(b.call("total", [none, zero, row, row]))
    functions: dict[str, Function] = {"total": lambda xs: xs.sum(axis=0), "scale": lambda x, a: a * x}
    results = run_reference(graph, functions, {"a": np.float32(0.5)})
    assert [result[0].tolist() for result in results] == [[0, 0], [0, 0], [0.5, -1], [1, -2]]
    assert all(result[0].dtype == np.float64 for result in results)


def test_progress_counts_nodes(trees: Case) -> None:
    graph = tree_graph(Builder(trees.signature), [1, 2, JOIN])
    seen: list[int] = []
    run_reference(graph, trees.workload.reference, trees.weights, progress=seen.append)
    assert sum(seen) == graph.num_nodes
