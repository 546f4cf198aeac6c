"""The native merge equals the NumPy one, array by array; what it does not take, it leaves to NumPy."""

from __future__ import annotations

import pickle
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given

from edbatch_tvm.batching.graph_keys import same_structure
from edbatch_tvm.graph import Builder, InstanceGraph, Signature, merge, validate
from edbatch_tvm.graph.merge import merge_again, reference_merge
from edbatch_tvm.native.merger import load
from tests.graph.cells import TREE
from tests.graph.oracle import assert_same
from tests.strategies import Minibatch, bare_graphs, minibatches

NATIVE = load()
TREE_TOO = Signature(list(TREE))


@given(minibatches(max_instances=6))
def test_equal_to_numpy(minibatch: Minibatch) -> None:
    merged = NATIVE.merge(minibatch.instances)
    wanted = reference_merge(minibatch.instances)
    if merged is None:
        assert not all(graph.num_nodes for graph in minibatch.instances)
        return
    assert_same(merged, wanted)
    assert list(merged.attributes) == sorted(wanted.attributes)
    for found, numpy in zip((*merged.uses, merged.type_count), (*wanted.uses, wanted.type_count), strict=True):
        assert found.dtype == numpy.dtype
        np.testing.assert_array_equal(found, numpy)
    again = NATIVE.merge([merged, merged])
    assert again is not None
    assert_same(again, reference_merge([wanted, wanted]))


@given(minibatches(max_instances=6))
def test_merging_again_is_merging(minibatch: Minibatch) -> None:
    instances = minibatch.instances
    for instance in instances:
        validate(instance)
    assert merge_again(instances) is None
    merged = merge(instances)
    again = merge_again(instances)
    if len(instances) < 2 or any(instance.merge_row is None for instance in instances):
        assert again is None
        return
    assert again is not None
    assert again.checked
    assert_same(again, merged)
    assert again.digest_of_parts == merged.digest_of_parts is not None
    assert same_structure(again, merged)
    assert same_structure(merged, reference_merge(instances))
    others = [*instances[1:], instances[0]]
    turned = merge_again(others)
    assert turned is not None
    assert_same(turned, reference_merge(others))
    if [graph.digest for graph in others] == [graph.digest for graph in instances]:
        assert turned.digest_of_parts == merged.digest_of_parts
    else:
        assert turned.digest_of_parts != merged.digest_of_parts
    for copy in (pickle.loads(pickle.dumps(instances[0])), deepcopy(instances[0])):
        assert copy.merge_row is None
        assert merge_again([copy, copy]) is None


def test_merging_again_takes_nothing_else() -> None:
    builder, other = Builder(TREE), Builder(TREE_TOO)
    graphs = [b.finish(b.call("leaf", word=1)[0]) for b in (builder, builder, other, other)]
    merge(graphs[:2])
    merge(graphs[2:])
    assert merge_again(graphs[:2]) is not None
    assert merge_again(graphs) is None
    assert_same(merge(graphs), reference_merge(graphs))
    assert merge_again([graphs[0], None]) is None  # type: ignore[list-item]
    assert merge_again(graphs[:1]) is None
    assert merge_again([]) is None


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
    no_producer = chain(np.array([0, 9], np.int32))
    for graph in (strided, wide, no_type, no_producer):
        assert graph.addresses is None
        assert NATIVE.merge([graph, graph]) is None
    assert merge([strided, strided]).operand_value.tolist() == [0, 1, 3, 4]


def test_python_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = chain(np.array([0, 1], np.int32))
    assert "uses" in vars(merge([graph, graph]))
    monkeypatch.setattr("edbatch_tvm.find_native.python_only", True)
    assert "uses" not in vars(merge([graph, graph]))
