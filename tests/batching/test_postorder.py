"""Policy ``postorder``: what a node reads was computed shortly before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from edbatch_tvm.batching import check_schedule, schedule
from edbatch_tvm.batching.postorder import LARGE_MINIBATCH, LARGE_VALUE, PostorderPolicy, fills_caches
from edbatch_tvm.graph import Attribute, Builder, CellSignature, InstanceGraph, Signature, ValueSpec
from tests.strategies import bare_graphs


@given(bare_graphs())
def test_postorder_schedules_any_graph(graph: InstanceGraph) -> None:
    for batches in (schedule(graph, "postorder", cache=False)[0], PostorderPolicy().reference(graph)):
        check_schedule(graph, batches)


@given(bare_graphs())
def test_compiled_code_gives_the_same_schedule(graph: InstanceGraph) -> None:
    assert_same(graph)


def test_nodes_are_counted_up_to_a_limit() -> None:
    # Each node reads the one before it twice over: paths double; beside it a node that is read last.
    nodes, operands = 200, [0, 1]
    pointer = [0, 0, 0, 2]
    for node in range(3, nodes, 2):
        operands += [node - 1, node - 3 if node > 3 else 0, node - 1, node]
        pointer += [len(operands) - 2, len(operands)]
    graph = InstanceGraph.from_arrays([0] * (len(pointer) - 1), pointer, operands)
    assert_same(graph)


def test_one_node_that_reads_many() -> None:
    sizes = np.random.default_rng(0).permutation(3000) % 7  # chains of these lengths, all read by one node
    ends = np.cumsum(sizes + 1)
    operands, pointer = [], [0]
    for node in range(int(ends[-1])):
        operands += [node - 1] if node not in {0, *ends.tolist()} else []
        pointer.append(len(operands))
    operands += (ends - 1).tolist()
    assert_same(InstanceGraph.from_arrays([0] * len(pointer), [*pointer, len(operands)], operands))


@pytest.mark.parametrize(("shape", "dtype", "fills"), [((64, 64), "float32", True), ((63, 64), "float32", False)])
def test_values_that_fill_caches(shape: tuple[int, ...], dtype: str, fills: bool) -> None:
    leaf = CellSignature("leaf", (), (Attribute("word", ValueSpec((), "int32")),), (ValueSpec(shape, dtype),))
    for nodes in (LARGE_MINIBATCH // LARGE_VALUE, LARGE_MINIBATCH // LARGE_VALUE - 1):
        builder = Builder(Signature([leaf]))
        builder.calls("leaf", word=np.zeros(nodes, np.int32))
        graph = builder.finish([])
        assert fills_caches(graph) == (fills and nodes * LARGE_VALUE == LARGE_MINIBATCH)


def assert_same(graph: InstanceGraph) -> None:
    found, wanted = PostorderPolicy().run(graph).schedule, PostorderPolicy().reference(graph)
    assert [(one, list(nodes)) for one, nodes in found] == [(one, list(nodes)) for one, nodes in wanted]


def test_postorder_finishes_a_subtree_before_the_next_one() -> None:
    # Two trees of two leaves each, and their root: nodes 0, 1 -> 4; 2, 3 -> 5; 4, 5 -> 6.
    graph = InstanceGraph.from_arrays([0] * 4 + [1] * 3, [0] * 5 + [2, 4, 6], [0, 1, 2, 3, 4, 5])
    batches, _ = schedule(graph, "postorder")
    assert [list(nodes) for _, nodes in batches] == [[0, 1], [4], [2, 3], [5], [6]]


@pytest.mark.parametrize("length", [1, 50_000])
def test_postorder_of_a_chain_needs_no_recursion(length: int) -> None:
    pointer = [0, *range(length)]
    graph = InstanceGraph.from_arrays([0] * length, pointer, list(range(length - 1)))
    batches, _ = schedule(graph, "postorder", cache=False)
    assert batches.order.tolist() == list(range(length))
