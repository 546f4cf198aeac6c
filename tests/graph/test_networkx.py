"""Instance graphs from and to networkx."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given

from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph import InstanceGraph, from_networkx, merge, to_networkx
from tests.graph.oracle import assert_same
from tests.graph.test_text import golden
from tests.strategies import Minibatch, bare_graphs, minibatches


@given(bare_graphs())
def test_round_trip(graph: InstanceGraph) -> None:
    assert_same(from_networkx(to_networkx(graph)), graph)
    assert_same(InstanceGraph.from_networkx(graph.to_networkx()), graph)


@given(minibatches())
def test_round_trip_of_what_cells_make(minibatch: Minibatch) -> None:
    """Zero states and external rows have no edge; what nodes produce stays in order."""
    for graph in (*minibatch.instances, merge(minibatch.instances)):
        digraph = to_networkx(graph)
        back = from_networkx(digraph)
        assert [int(name) for name in np.array(back.type_names)[back.node_type]] == graph.node_type.tolist()
        assert back.operand_node.tolist() == graph.operand_node[graph.operand_node >= 0].tolist()
        places = sorted((user, data["slot"], data["operand"]) for _, user, data in digraph.edges(data=True))
        every = np.flatnonzero(graph.operand_node >= 0)
        pointer = graph.operand_ptr
        assert [pointer[user] + operand for user, _, operand in places] == every.tolist()
        assert [back.operand_ptr[user] + slot for user, slot, _ in places] == list(range(len(every)))


def test_nodes_are_renumbered_only_where_an_operand_comes_late() -> None:
    digraph = nx.DiGraph([("b", "a"), ("c", "a"), ("a", "d")])
    nx.set_node_attributes(digraph, {"a": 10, "b": 20, "c": 30, "d": 40}, "type")
    graph = from_networkx(digraph)
    assert [graph.type_names[kind] for kind in graph.node_type] == ["20", "30", "10", "40"]
    assert graph.operand_node.tolist() == [0, 1, 2]


def test_slots_order_the_operands() -> None:
    digraph = nx.MultiDiGraph()
    digraph.add_nodes_from([(0, {"type": 1}), (1, {"type": 1}), (2, {"type": 2})])
    digraph.add_edge(0, 2, slot=2)
    digraph.add_edge(1, 2, slot=0)
    digraph.add_edge(0, 2, slot=1)
    assert from_networkx(digraph).operand_node.tolist() == [1, 0, 0]


def test_attributes_of_a_graph_with_cells() -> None:
    digraph = to_networkx(merge([golden(), golden()]))
    assert digraph.nodes[2] == {"type": 1, "name": "pair"}
    assert sorted((u, data["slot"], data["output"]) for u, _, data in digraph.in_edges(2, data=True)) == [
        (0, 0, 0),
        (0, 1, 1),
        (1, 2, 0),
    ]
    assert digraph.number_of_nodes() == 12


def _digraph(*edges: tuple[int, int, object]) -> nx.DiGraph:
    digraph = nx.DiGraph()
    digraph.add_nodes_from(range(3), type=0)
    for producer, user, slot in edges:
        digraph.add_edge(producer, user, slot=slot)
    return digraph


@pytest.mark.parametrize(
    ("digraph", "message"),
    [
        (nx.Graph([(0, 1)]), "an undirected graph; expected a DiGraph with edges from producer to user"),
        (_digraph((0, 1, 0), (1, 2, 0), (2, 0, 0)), "cyclic graph: 0 -> 1 -> 2 -> 0; expected a DAG"),
        (nx.DiGraph([(0, 1)]), "node 0 has type None; expected an integer node attribute 'type'"),
        (_digraph((0, 1, "first")), "edge 0 -> 1 has slot 'first'; expected an integer"),
    ],
)
def test_digraphs_that_are_no_instance(digraph: nx.Graph, message: str) -> None:
    with pytest.raises(GraphError) as caught:
        from_networkx(digraph)
    assert str(caught.value) == message


@pytest.mark.parametrize("given", [{"a": 1}, None, [(0, 1)], 7, "graph"], ids=str)
def test_what_is_no_graph_is_refused(given: object) -> None:
    with pytest.raises(GraphError, match=rf"a {type(given).__name__}; expected a networkx.DiGraph"):
        InstanceGraph.from_networkx(given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ((0, 0), "node 2 has two operands for slot 0; expected the slots 0 to 1, each once"),
        ((0, 2), "node 2 has an operand from 1 for slot 2"),
        ((1, 2), "node 2 has an operand from 0 for slot 1"),
        ((-1, 0), "node 2 has an operand from 0 for slot -1"),
        ((1, None), "edge 1 -> 2 has no slot, others of 2 have one; expected a slot for each"),
    ],
)
def test_slots_that_are_not_each_once(slots: tuple[int | None, ...], message: str) -> None:
    graph = nx.MultiDiGraph()
    for node in range(3):
        graph.add_node(node, type=0)
    for producer, slot in enumerate(slots):
        graph.add_edge(producer, 2, **({} if slot is None else {"slot": slot}))
    with pytest.raises(GraphError, match=message):
        InstanceGraph.from_networkx(graph)


def test_a_long_cycle_is_cut_short() -> None:
    digraph = nx.DiGraph((node, (node + 1) % 1000) for node in range(1000))
    expected = (
        "cyclic graph: 0 -> 1 -> 2 -> 3 -> 4 -> (990 more) -> 995 -> 996 -> 997 -> 998 -> 999 -> 0; expected a DAG"
    )
    with pytest.raises(GraphError) as caught:
        from_networkx(digraph)
    assert str(caught.value) == expected
