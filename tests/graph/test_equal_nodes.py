"""Equal nodes against a plain definition: two nodes are one exactly if all that they are computed from is equal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from edbatch_tvm.errors import GraphError
from edbatch_tvm.find_native import find_native
from edbatch_tvm.graph import Attribute, Builder, CellSignature, InstanceGraph, Operand, Signature, ValueSpec, merge
from edbatch_tvm.graph.equal_nodes import merge_equal_nodes, reference
from edbatch_tvm.graph.node_users import find_uses
from edbatch_tvm.graph.validate import validate
from tests.strategies import Minibatch, bare_graphs, minibatches


def expressions(graph: InstanceGraph) -> list[object]:
    """What each node computes, written out."""
    found: list[object] = []
    counts = [0] * graph.num_types
    for v, kind in enumerate(graph.node_type.tolist()):
        values = graph.operand_value[graph.operand_ptr[v] : graph.operand_ptr[v + 1]].tolist()
        operands = tuple(
            (found[value // graph.stride], value % graph.stride) if value >= 0 else value for value in values
        )
        words = tuple(
            rows[counts[kind]].tobytes() for (own, _), rows in sorted(graph.attributes.items()) if own == kind
        )
        counts[kind] += 1
        found.append((kind, operands, words))
    return found


def check(graph: InstanceGraph) -> None:
    equal = merge_equal_nodes(graph)
    before, after = expressions(graph), expressions(equal.graph)
    validate(equal.graph)
    assert len(set(map(repr, after))) == len(after)  # no two that are left are equal
    assert [after[node] for node in equal.node.tolist()] == before
    assert equal.merged == graph.num_nodes - equal.graph.num_nodes
    assert list(dict.fromkeys(equal.node.tolist())) == list(range(len(after)))  # the first is left
    stride = graph.stride
    outputs = [(before[value // stride], value % stride) for value in graph.outputs.tolist()]
    assert [(after[value // stride], value % stride) for value in equal.graph.outputs.tolist()] == outputs
    assert equal.graph.output_ptr.tolist() == graph.output_ptr.tolist()
    assert equal.graph.num_instances == graph.num_instances
    uses, expected = equal.graph.uses, find_uses(equal.graph.operand_ptr, equal.graph.operand_node)
    assert all(map(np.array_equal, uses, expected))
    if find_native("merge equal nodes") is not None:
        found = reference(graph)
        assert np.array_equal(found.node, equal.node)
        assert np.array_equal(found.operand_ptr, equal.graph.operand_ptr)
        assert np.array_equal(found.operand_value, equal.graph.operand_value)


@given(bare_graphs(max_nodes=40, max_types=2, max_arity=2))
def test_bare_graphs(graph: InstanceGraph) -> None:
    check(graph)


@given(minibatches())
def test_minibatches(minibatch: Minibatch) -> None:
    check(merge(minibatch.instances))


@given(minibatches(external=False))
def test_copies_of_instances_are_computed_once(minibatch: Minibatch) -> None:
    once = merge_equal_nodes(merge(minibatch.instances))
    twice = merge_equal_nodes(merge([*minibatch.instances, *minibatch.instances]))
    assert twice.graph.num_nodes == once.graph.num_nodes
    assert np.array_equal(twice.node, np.tile(once.node, 2))


VECTOR = ValueSpec((4,))
CELLS = Signature(
    [
        CellSignature("leaf", (), (Attribute("word", ValueSpec((), "int32"), 9),), (VECTOR,)),
        CellSignature("scaled", (Operand("x", VECTOR),), (Attribute("by", ValueSpec((), "float32")),), (VECTOR,)),
        CellSignature("joined", (Operand("rows", VECTOR, True),), (), (VECTOR,)),
    ]
)


def test_attributes_are_compared_as_bytes() -> None:
    """0.0 and -0.0 are not the same number to every cell; one NaN is."""
    builder = Builder(CELLS)
    leaf = builder.call("leaf", word=3)
    scaled = [builder.call("scaled", leaf, by=by) for by in (0.0, -0.0, np.nan, np.nan, 0.0)]
    assert merge_equal_nodes(builder.finish(scaled)).node.tolist() == [0, 1, 2, 3, 3, 1]


def test_order_and_number_of_rows_matter() -> None:
    builder = Builder(CELLS)
    one, two, same = (builder.call("leaf", word=word) for word in (1, 2, 1))
    joined = [builder.call("joined", rows) for rows in ([one, two], [two, one], [same, two], [one], [], [])]
    assert merge_equal_nodes(builder.finish(joined)).node.tolist() == [0, 1, 0, 2, 3, 2, 4, 5, 5]


def test_equal_external_rows_stay_apart() -> None:
    builder = Builder(CELLS)
    first, second = np.ones((2, 4), np.float32)
    scaled = [builder.call("scaled", one, by=1.0) for one in (first, second)]
    assert merge_equal_nodes(builder.finish(scaled)).merged == 0


def test_a_graph_with_a_fault_is_refused() -> None:
    graph = InstanceGraph(np.zeros(1, np.int16), np.array([0, 1], np.int32), np.zeros(1, np.int32))
    with pytest.raises(GraphError, match="cyclic graph"):
        merge_equal_nodes(graph)
