"""Registry, weights and multiply-adds."""

from __future__ import annotations

import numpy as np
import pytest

from edbatch_tvm.errors import EdbatchError
from edbatch_tvm.flops import multiply_adds_of_graph
from edbatch_tvm.graph import Builder
from edbatch_tvm.models import WORKLOADS, get_workload
from edbatch_tvm.models.childsum_tree.build import flat_tree_graph
from tests.models.conftest import HIDDEN, Case, case

CELLS = {
    "treelstm": ("leaf", "internal", "readout"),
    "bilstm-tagger": ("forward_layer1", "forward_layer2", "backward_layer1", "backward_layer2", "tag"),
    "lattice-lstm": ("start", "char_arc", "word_arc", "join", "readout"),
    "treelstm-2type": ("leaf", "internal_a", "internal_b", "readout"),
    "treegru": ("leaf", "internal", "readout"),
    "mvrnn": ("leaf", "internal", "readout"),
    "bilstm-tagger-char": (
        "char_forward_layer1", "char_forward_layer2", "char_backward_layer1", "char_backward_layer2",
        "word", "spell", "forward_layer1", "forward_layer2", "backward_layer1", "backward_layer2", "tag",
    ),
    "lstm-nmt": ("source", "encoder", "target", "decoder", "readout"),
    "lattice-gru": ("start", "char_arc", "word_arc", "join", "readout"),
    "childsum-tree": ("leaf", "internal", "readout"),
    "grid-lstm": ("source", "target", "grid", "readout"),
    "random-dag": ("input", "dense", "gated", "weighted", "largest", "readout"),
}  # fmt: skip


def test_cells_are_those_of_the_workload(every: Case) -> None:
    assert every.signature.names == CELLS[every.workload.name]
    assert set(every.workload.reference) == set(every.signature.names)


@pytest.mark.parametrize("name", WORKLOADS)
def test_modules_of_cells_are_the_callers_own(name: str) -> None:
    workload = get_workload(name)
    mod, again = workload.cells(HIDDEN), workload.cells(HIDDEN)
    functions = list(mod.functions.values())
    assert all(one.same_as(other) for one, other in zip(functions, again.functions.values(), strict=True))
    mod["added"] = functions[0].with_attr("global_symbol", "added")
    assert [var.name_hint for var in again.functions] == [var.name_hint for var in workload.cells(HIDDEN).functions]
    assert tuple(var.name_hint for var in again.functions) == CELLS[name]


def test_unknown_workload() -> None:
    with pytest.raises(EdbatchError) as error:
        get_workload("gru")
    assert str(error.value) == f"unknown workload 'gru'; expected one of {', '.join(WORKLOADS)}"


def test_weights_are_seeded(every: Case) -> None:
    again, other = every.workload.weights(HIDDEN, seed=3), every.workload.weights(HIDDEN, seed=4)
    for name, array in every.weights.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, again[name])
        assert not np.array_equal(array, other[name])


def test_weights_are_uniform_by_fan_in() -> None:
    weights = get_workload("treelstm").weights(64)
    limits = {name: np.abs(array).max() for name, array in weights.items() if array.size > 150}
    fan_in = {
        "embedding": 1,
        "W_leaf": 64,
        "b_leaf": 64,
        "U_iou": 128,
        "b_iou": 128,
        "U_f1": 64,
        "U_f2": 64,
        "W_out": 64,
    }
    assert limits == pytest.approx({name: rows**-0.5 for name, rows in fan_in.items()}, rel=0.03)
    assert np.abs(weights["b_out"]).max() <= 64**-0.5


def test_weights_of_matrices() -> None:
    weights = get_workload("mvrnn").weights(64)
    limits = {name: np.abs(array).max() for name, array in weights.items() if array.size > 150}
    fan_in = {"embedding": 1, "matrices": 64, "W_v": 128, "W_M": 128, "b_M": 64, "W_out": 64}
    assert limits == pytest.approx({name: rows**-0.5 for name, rows in fan_in.items()}, rel=0.03)


def test_cells_of_one_form_have_weights_of_their_own() -> None:
    weights = get_workload("treelstm-2type").weights(4)
    assert {name for name in weights if name.endswith("_a")} == {"U_iou_a", "b_iou_a", "U_f1_a", "U_f2_a", "b_f_a"}
    assert weights["U_iou_a"].shape == weights["U_iou_b"].shape
    assert not np.array_equal(weights["U_iou_a"], weights["U_iou_b"])
    arcs = get_workload("lattice-gru")
    assert [attribute.name for attribute in case("lattice-gru").signature[1].attributes] == ["char"]
    assert {"char_embedding", "word_embedding", "U_c_char", "U_c_word"} <= set(arcs.weights(4))


def test_embeddings_of_an_odd_hidden_size_are_even() -> None:
    weights = get_workload("bilstm-tagger-char").weights(5)
    assert weights["embedding"].shape == (256, 6)
    assert weights["char_embedding"].shape == (257, 3)
    assert weights["W_forward1"].shape == (6 + 5, 4 * 5)
    assert weights["W_char_forward2"].shape == (3 + 3, 4 * 3)


def test_multiply_adds_are_those_of_the_table() -> None:
    H = 10
    assert get_workload("treelstm").multiply_adds(H) == {"leaf": 3 * H * H, "internal": 8 * H * H, "readout": 5 * H}
    assert get_workload("bilstm-tagger").multiply_adds(H) == {
        "forward_layer1": 8 * H * H,
        "forward_layer2": 8 * H * H,
        "backward_layer1": 8 * H * H,
        "backward_layer2": 8 * H * H,
        "tag": 2 * H * H + 9 * H,
    }
    assert get_workload("lattice-lstm").multiply_adds(H) == {
        "start": 0,
        "char_arc": 8 * H * H,
        "word_arc": 8 * H * H,
        "join": 0,
        "readout": 64 * H,
    }


def test_multiply_adds_of_the_other_workloads() -> None:
    H = 10
    work = {name: get_workload(name).multiply_adds(H) for name in WORKLOADS[3:]}
    assert work["treelstm-2type"]["internal_b"] == 8 * H * H
    assert work["treegru"] == {"leaf": 3 * H * H, "internal": 6 * H * H, "readout": 5 * H}
    assert work["mvrnn"] == {"leaf": 0, "internal": 4 * H * H + 2 * H**3, "readout": 5 * H}
    assert work["bilstm-tagger-char"]["char_forward_layer1"] == 8 * H * H / 4
    assert work["bilstm-tagger-char"]["backward_layer1"] == 8 * H * H
    assert work["bilstm-tagger-char"]["spell"] == 0
    assert work["lstm-nmt"] == {
        "source": H * H, "encoder": 8 * H * H, "target": H * H, "decoder": 8 * H * H, "readout": 256 * H
    }  # fmt: skip
    assert work["lattice-gru"]["char_arc"] == 6 * H * H
    assert work["childsum-tree"]["internal"] == 3 * H * H  # and those of the children
    assert work["grid-lstm"] == {"source": 2 * H * H, "target": 2 * H * H, "grid": 16 * H * H, "readout": 512 * H}
    assert work["random-dag"]["gated"] == 2 * H * H


def test_multiply_adds_of_a_graph_count_variadic_rows() -> None:
    found, H = case("childsum-tree"), 10
    graph = flat_tree_graph(Builder(found.signature), [1, 2, 3, -3, 4, -2])  # 4 leaves; 3 and 2 children
    expected = 4 * 3 * H * H + (2 * 3 + 3 + 2) * H * H + 6 * 5 * H
    assert multiply_adds_of_graph(found.workload.cells(H), graph) == expected


def test_multiply_adds_of_a_graph_without_variadic_products() -> None:
    found, H = case("lattice-lstm"), 10
    (graph,) = found.workload.generate(1, found.signature)
    per_call = found.workload.multiply_adds(H)
    expected = sum(per_call[name] * count for name, count in zip(found.signature.names, graph.type_count, strict=True))
    assert multiply_adds_of_graph(found.workload.cells(H), graph) == expected


def test_registry_names_are_the_workloads_names() -> None:
    assert tuple(get_workload(name).name for name in WORKLOADS) == WORKLOADS
