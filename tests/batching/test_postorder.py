"""Policy ``postorder``: what a node reads was computed shortly before."""

from __future__ import annotations

import pytest
from hypothesis import given

from edbatch_tvm.batching import check_schedule, schedule
from edbatch_tvm.graph import InstanceGraph
from tests.strategies import bare_graphs


@given(bare_graphs())
def test_postorder_schedules_any_graph(graph: InstanceGraph) -> None:
    batches, _ = schedule(graph, "postorder", cache=False)
    check_schedule(graph, batches)


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
