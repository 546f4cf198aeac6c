"""Merge against plain Python: the instances of a merged graph are the instances that went in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph import Builder, InstanceGraph, Signature, merge, validate
from tests.graph.cells import LEAF, TREE
from tests.graph.oracle import assert_same, plain
from tests.strategies import Minibatch, bare_graphs, minibatches


@given(minibatches())
def test_instances_stay_what_they_are(minibatch: Minibatch) -> None:
    merged = merge(minibatch.instances)
    validate(merged)
    assert plain(merged) == [plain(instance)[0] for instance in minibatch.instances]
    assert merged.num_instances == len(minibatch.instances)
    assert merged.scalar_output.tolist() == [bool(i.scalar_output[0]) for i in minibatch.instances]


@given(minibatches(max_instances=6, max_nodes=6), st.integers(0, 6), st.integers(0, 6))
def test_merge_of_merges(minibatch: Minibatch, one: int, other: int) -> None:
    instances = minibatch.instances
    low, high = sorted((one % len(instances), other % len(instances)))
    groups = [group for group in (instances[:low], instances[low:high], instances[high:]) if group]
    assert_same(merge([merge(group) for group in groups]), merge(instances))


@given(st.lists(bare_graphs(), min_size=1, max_size=4))
def test_bare_graphs_with_different_type_ids(instances: list[InstanceGraph]) -> None:
    merged = merge(instances)
    validate(merged)
    assert plain(merged) == [plain(instance)[0] for instance in instances]


def test_type_ids_where_only_some_graphs_have_labels() -> None:
    plain_ids = InstanceGraph(np.array([0, 1], np.int16), np.array([0, 0, 1], np.int32), np.array([0], np.int32))
    labelled = InstanceGraph.from_arrays([1, 9], [0, 0, 1], [0])
    for order in ([plain_ids, labelled], [labelled, plain_ids]):
        assert plain(merge(order)) == [plain(graph)[0] for graph in order]


def test_inputs_are_not_changed() -> None:
    b = Builder(TREE)
    b.call("readout", np.ones(4, np.float32))
    first = b.finish()
    b.call("pair", b.zero, b.zero, *b.call("leaf", word=1))
    second = b.finish()
    before = plain(first), plain(second)
    merge([first, second, first])
    assert (plain(first), plain(second)) == before


def test_one_instance_is_itself() -> None:
    graph = InstanceGraph.from_arrays([0], [0, 0], [])
    assert merge([graph]) is graph


def test_equal_signatures_need_not_be_one_object() -> None:
    one, other = Builder(Signature([LEAF])), Builder(Signature([LEAF]))
    one.call("leaf", word=1)
    other.call("leaf", word=2)
    assert merge([one.finish(), other.finish()]).attributes[0, "word"].tolist() == [1, 2]


def test_no_instances_and_different_cells() -> None:
    with pytest.raises(GraphError, match="an empty minibatch: 0 instances; expected 1 or more"):
        merge([])
    one, other = Builder(Signature([LEAF])).finish(), Builder(TREE).finish()
    with pytest.raises(GraphError, match=r"instance 2 has cells \('leaf', 'pair', .* expected those of instance 0"):
        merge([one, one, other])
    with pytest.raises(GraphError, match="instance 1 has cells"):
        merge([one, InstanceGraph.from_arrays([0], [0, 0], [])])


def test_too_many_nodes() -> None:
    count = 50_000_000
    wide = Signature([type(LEAF)("wide", (), (), LEAF.outputs * 25)])
    nodes = np.broadcast_to(np.int16(0), count)
    graph = InstanceGraph(nodes, np.broadcast_to(np.int32(0), count + 1), np.empty(0, np.int32), wide)
    with pytest.raises(GraphError, match=r"a minibatch of 100000000 nodes; expected values that fit int32 \(hint: use"):
        merge([graph, graph])
