"""Registry, weights and multiply-adds."""

from __future__ import annotations

import numpy as np
import pytest

from edbatch_tvm.errors import EdbatchError
from edbatch_tvm.models import WORKLOADS, get_workload
from tests.models.conftest import HIDDEN, Case

CELLS = {
    "treelstm": ("leaf", "internal", "readout"),
    "bilstm-tagger": ("forward_layer1", "forward_layer2", "backward_layer1", "backward_layer2", "tag"),
    "lattice-lstm": ("start", "char_arc", "word_arc", "join", "readout"),
}


def test_cells_are_those_of_the_workload(every: Case) -> None:
    assert every.signature.names == CELLS[every.workload.name]
    assert set(every.workload.reference) == set(every.signature.names)


def test_unknown_workload() -> None:
    with pytest.raises(
        EdbatchError, match=r"^unknown workload 'gru'; expected one of treelstm, bilstm-tagger, lattice-lstm$"
    ):
        get_workload("gru")


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


def test_registry_names_are_the_workloads_names() -> None:
    assert tuple(get_workload(name).name for name in WORKLOADS) == WORKLOADS
