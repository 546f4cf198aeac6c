"""InstanceGraph.from_arrays: graphs of one-output nodes that come as arrays."""

from __future__ import annotations

import numpy as np
import pytest

from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph import InstanceGraph


def test_type_ids_may_be_sparse_and_large() -> None:
    graph = InstanceGraph.from_arrays([2**40, 7, 2**40, 0], [0, 0, 0, 1, 3], [1, 0, 2])
    assert graph.node_type.tolist() == [2, 1, 2, 0]
    assert graph.type_names == ("0", "7", str(2**40))
    assert graph.num_types == 3
    assert graph.type_count.tolist() == [1, 1, 2]
    assert graph.nodes_of(2).tolist() == [0, 2]
    assert graph.operand_node.tolist() == [1, 0, 2]


@pytest.mark.parametrize("empty", [[], (), np.empty(0), np.empty(0, np.int64)])
def test_empty_graph(empty: object) -> None:
    graph = InstanceGraph.from_arrays(empty, [0], empty)
    assert (graph.num_nodes, graph.num_types, graph.num_instances, len(graph)) == (0, 0, 1, 0)
    assert repr(graph) == "InstanceGraph(node_type=[0], operand_value=[0], types=0)"


def test_single_node() -> None:
    graph = InstanceGraph.from_arrays([5], [0, 0], [])
    assert (graph.num_nodes, graph.type_names) == (1, ("5",))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_any_integer_dtype(dtype: type[np.integer]) -> None:
    types, pointer, operands = np.array([0, 1], dtype), np.array([0, 0, 1], dtype), np.array([0], dtype)
    graph = InstanceGraph.from_arrays(types, pointer, operands)
    assert graph.node_type.dtype == np.int16
    assert graph.operand_ptr.dtype == graph.operand_value.dtype == np.int32


def test_the_given_arrays_may_change_afterwards() -> None:
    pointer, operands = np.array([0, 0, 1], np.int32), np.array([0], np.int32)
    graph = InstanceGraph.from_arrays([0, 1], pointer, operands)
    pointer[:], operands[:] = 7, 7
    assert graph.operand_ptr.tolist() == [0, 0, 1]
    assert graph.operand_value.tolist() == [0]


@pytest.mark.parametrize(
    ("types", "pointer", "operands", "message"),
    [
        ([-1], [0, 0], [], "node_type holds -1; expected type ids of 0 or more"),
        ([0.5], [0, 0], [], "node_type has shape (1,) and dtype float64; expected a one-dimensional integer array"),
        ([[0]], [0, 0], [], "node_type has shape (1, 1) and dtype int64"),
        ([0, [1]], [0, 0], [], "node_type is nested"),
        ([0], [0], [], "operand_ptr has 1 entries for 1 nodes; expected 2"),
        ([0, 0], [0, 1, 0], [0], "operand_ptr is not a list of offsets; expected 0 first, never falling, 1 last"),
        ([0], [0, 2], [0], "operand_ptr is not a list of offsets"),
        ([0], [1, 1], [0], "operand_ptr is not a list of offsets"),
        ([0], [0, 2**40], [0], f"operand_ptr holds {2**40}; expected numbers that fit int32"),
        ([0], [0, 1], [-(2**40)], f"operand_node holds -{2**40}; expected numbers that fit int32"),
        ([2**63], [0, 0], [], f"node_type holds {2**63}; expected numbers that fit int64"),
        ([10**30], [0, 0], [], "node_type has shape (1,) and dtype object"),
    ],
)
def test_arrays_that_are_no_graph(types: object, pointer: object, operands: object, message: str) -> None:
    with pytest.raises(GraphError) as caught:
        InstanceGraph.from_arrays(types, pointer, operands)
    assert str(caught.value).startswith(message)


def test_too_many_types() -> None:
    with pytest.raises(GraphError, match="40000 different types; expected at most 32767"):
        InstanceGraph.from_arrays(np.arange(40000), np.zeros(40001, np.int32), [])
