"""The native merge equals the NumPy one, array by array; what it does not take, it leaves to NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from edbatch_tvm.graph import InstanceGraph, merge
from edbatch_tvm.graph.merge import reference_merge
from edbatch_tvm.native.merger import load
from tests.graph.oracle import assert_same
from tests.strategies import Minibatch, bare_graphs, minibatches

NATIVE = load()


def regular(minibatch: Minibatch) -> bool:
    return not any(len(graph.external_row) or graph.external_data for graph in minibatch.instances)


@given(minibatches(max_instances=6))
def test_equal_to_numpy(minibatch: Minibatch) -> None:
    merged = NATIVE.merge(minibatch.instances)
    wanted = reference_merge(minibatch.instances)
    if merged is None:
        assert not regular(minibatch) or not all(graph.num_nodes for graph in minibatch.instances)
        return
    assert regular(minibatch)
    assert_same(merged, wanted)
    assert list(merged.attributes) == sorted(wanted.attributes)
    for name in ("dependency", "type_count"):
        found = getattr(merged, name)
        assert found.dtype == getattr(wanted, name).dtype
        np.testing.assert_array_equal(found, getattr(wanted, name))
    again = NATIVE.merge([merged, merged])
    assert again is not None
    assert_same(again, reference_merge([wanted, wanted]))


@given(bare_graphs())
def test_bare_graphs(graph: InstanceGraph) -> None:
    merged = NATIVE.merge([graph, graph, graph])
    if merged is None:
        assert not graph.num_nodes
    else:
        assert_same(merged, reference_merge([graph, graph, graph]))


def chain(operand_value: np.ndarray, node_type: np.ndarray | None = None) -> InstanceGraph:
    types = np.zeros(3, np.int16) if node_type is None else node_type
    return InstanceGraph(types, np.array([0, 0, 1, 2], np.int32), operand_value)


def test_what_is_left_to_numpy() -> None:
    strided = chain(np.array([0, 9, 1, 9], np.int32)[::2])
    wide = chain(np.array([0, 1], np.int64))
    no_type = chain(np.array([0, 1], np.int32), np.array([0, -1, 0], np.int16))
    for graph in (strided, wide, no_type):
        assert graph.addresses is None
        assert NATIVE.merge([graph, graph]) is None
    assert merge([strided, strided]).operand_value.tolist() == [0, 1, 3, 4]


def test_python_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = chain(np.array([0, 1], np.int32))
    assert "dependency" in vars(merge([graph, graph]))
    monkeypatch.setenv("EDBATCH_BACKEND", "python")
    assert "dependency" not in vars(merge([graph, graph]))
