"""The references of the other tree workloads against torch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edbatch_tvm.graph import Builder
from edbatch_tvm.models.childsum_tree.build import flat_tree_graph
from edbatch_tvm.models.treelstm.build import JOIN, tree_graph
from edbatch_tvm.models.treelstm_2type.build import JOIN_A, JOIN_B, typed_tree_graph
from tests.models.conftest import case
from tests.models.torch_models import outputs, tensors

torch = pytest.importorskip("torch")

TREE: Any = ((3, 250), ((7, 7), 0))
POSTFIX = [3, 250, JOIN, 7, 7, JOIN, 0, JOIN, JOIN]


def test_two_types_equal_torch() -> None:
    found = case("treelstm-2type")
    w = tensors(found)
    logits = []

    def state(tree: Any) -> Any:
        if isinstance(tree, int):
            i, o, u = (w["embedding"][tree] @ w["W_leaf"] + w["b_leaf"]).chunk(3)
            c = i.sigmoid() * u.tanh()
        else:
            kind, left, right = tree
            (h1, c1), (h2, c2) = state(left), state(right)
            i, o, u = (torch.cat([h1, h2]) @ w[f"U_iou_{kind}"] + w[f"b_iou_{kind}"]).chunk(3)
            f1 = (h1 @ w[f"U_f1_{kind}"] + w[f"b_f_{kind}"]).sigmoid()
            f2 = (h2 @ w[f"U_f2_{kind}"] + w[f"b_f_{kind}"]).sigmoid()
            c = i.sigmoid() * u.tanh() + f1 * c1 + f2 * c2
        h = o.sigmoid() * c.tanh()
        logits.append(h @ w["W_out"] + w["b_out"])
        return h, c

    state(("a", ("b", 3, 250), ("a", ("b", 7, 7), 0)))
    graph = typed_tree_graph(Builder(found.signature), [3, 250, JOIN_B, 7, 7, JOIN_B, 0, JOIN_A, JOIN_A])
    np.testing.assert_allclose(outputs(found, graph), torch.stack(logits), rtol=1e-10)


def test_treegru_equals_torch() -> None:
    found = case("treegru")
    w = tensors(found)
    logits = []

    def step(h: Any, gates: Any, candidate: Any) -> Any:
        (U, b), (U_c, b_c) = gates, candidate
        hidden = len(h)
        r = torch.sigmoid(U[:, :hidden].T @ h + b[:hidden])
        z = torch.sigmoid(U[:, hidden:].T @ h + b[hidden:])
        return torch.lerp(torch.tanh(U_c.T @ (r * h) + b_c), h, z)

    def state(tree: Any) -> Any:
        if isinstance(tree, int):
            h = step(w["embedding"][tree], (w["U_leaf"], w["b_leaf"]), (w["U_leaf_c"], w["b_leaf_c"]))
        else:
            children = enumerate(map(state, tree), 1)
            parts = [step(h, (w[f"U_{k}"], w["b"]), (w[f"U_c{k}"], w["b_c"])) for k, h in children]
            h = torch.stack(parts).mean(dim=0)
        logits.append(h @ w["W_out"] + w["b_out"])
        return h

    state(TREE)
    graph = tree_graph(Builder(found.signature), POSTFIX)
    np.testing.assert_allclose(outputs(found, graph), torch.stack(logits), rtol=1e-10)


def test_mvrnn_equals_torch() -> None:
    found = case("mvrnn")
    w = tensors(found)
    logits = []

    def state(tree: Any) -> Any:
        if isinstance(tree, int):
            v, M = w["embedding"][tree], w["matrices"][tree]
        else:
            (v_l, M_l), (v_r, M_r) = map(state, tree)
            hidden = len(v_l)
            W_l, W_r = w["W_v"][:hidden], w["W_v"][hidden:]
            v = torch.tanh(torch.mv(W_l.T, torch.mv(M_l, v_r)) + torch.mv(W_r.T, torch.mv(M_r, v_l)) + w["b"])
            M = torch.mm(w["W_M"][:, :hidden], M_l) + torch.mm(w["W_M"][:, hidden:], M_r) + w["b_M"]
        logits.append(v @ w["W_out"] + w["b_out"])
        return v, M

    state(TREE)
    graph = tree_graph(Builder(found.signature), POSTFIX)
    np.testing.assert_allclose(outputs(found, graph), torch.stack(logits), rtol=1e-10)


def test_childsum_tree_equals_torch() -> None:
    found = case("childsum-tree")
    w = tensors(found)
    logits = []

    def state(tree: Any) -> Any:
        if isinstance(tree, int):
            i, o, u = (w["embedding"][tree] @ w["W_leaf"] + w["b_leaf"]).chunk(3)
            kept = torch.zeros_like(i)
        else:
            children = [state(child) for child in tree]
            i, o, u = (torch.stack([h for h, _ in children]).sum(dim=0) @ w["U_iou"] + w["b_iou"]).chunk(3)
            kept = sum(torch.sigmoid(h @ w["U_f"] + w["b_f"]) * c for h, c in children)
        c = torch.sigmoid(i) * torch.tanh(u) + kept
        h = torch.sigmoid(o) * torch.tanh(c)
        logits.append(h @ w["W_out"] + w["b_out"])
        return h, c

    state(((1, 2, 3), 4, (5, (6, 7, 8, 9))))
    graph = flat_tree_graph(Builder(found.signature), [1, 2, 3, -3, 4, 5, 6, 7, 8, 9, -4, -2, -3])
    np.testing.assert_allclose(outputs(found, graph), torch.stack(logits), rtol=1e-10)
