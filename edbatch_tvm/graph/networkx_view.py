"""Instance graphs from and to networkx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edbatch_tvm.errors import EnvironmentMismatch, GraphError
from edbatch_tvm.graph.instance import InstanceGraph

if TYPE_CHECKING:
    import networkx as nx

_SHOWN = 5
"""Nodes at either end of a long cycle that an error names."""


def _networkx() -> Any:
    try:
        import networkx
    except ImportError:
        raise EnvironmentMismatch("networkx is not installed", hint="pip install networkx") from None
    return networkx


def from_networkx(graph: nx.DiGraph[Any] | nx.MultiDiGraph[Any]) -> InstanceGraph:
    """Graph of one-output nodes from a digraph whose edges point from producer to user.

    Parameters
    ----------
    graph : networkx.DiGraph or networkx.MultiDiGraph
        Each node has an integer attribute ``type``. An integer edge attribute ``slot`` orders the operands of a
        node; without it they are taken in edge order.

    Returns
    -------
    InstanceGraph
        Nodes in topological order, the earliest possible of the digraph's node order: a digraph that lists producers
        before their users keeps its order.

    Raises
    ------
    GraphError
        If it is no networkx graph, undirected or cyclic, a node has no type, a slot is no integer, or the slots of a
        node are not 0, 1, ... each once.
    """
    nx = _networkx()
    if not isinstance(graph, nx.Graph):
        raise GraphError(f"a {type(graph).__name__}", "a networkx.DiGraph")
    if not graph.is_directed():
        raise GraphError("an undirected graph", "a DiGraph with edges from producer to user")
    try:
        position = {node: index for index, node in enumerate(graph)}
        order = list(nx.lexicographical_topological_sort(graph, key=position.__getitem__))
    except nx.NetworkXUnfeasible:
        cycle = [edge[0] for edge in nx.find_cycle(graph)]
        shown = (
            cycle
            if len(cycle) <= 2 * _SHOWN
            else [*cycle[:_SHOWN], f"({len(cycle) - 2 * _SHOWN} more)", *cycle[-_SHOWN:]]
        )
        raise GraphError(f"cyclic graph: {' -> '.join(map(str, [*shown, cycle[0]]))}", "a DAG") from None
    number = {node: index for index, node in enumerate(order)}
    types: list[int] = []
    pointer = [0]
    operands: list[int] = []
    for node in order:
        kind = graph.nodes[node].get("type")
        if not isinstance(kind, int | np.integer):
            raise GraphError(f"node {node!r} has type {kind!r}", "an integer node attribute 'type'")
        types.append(int(kind))
        edges = list(graph.in_edges(node, data="slot", default=0))
        for producer, _, slot in edges:
            if not isinstance(slot, int | np.integer):
                raise GraphError(f"edge {producer!r} -> {node!r} has slot {slot!r}", "an integer")
        edges.sort(key=lambda edge: edge[2])
        _check_slots(node, list(graph.in_edges(node, data="slot")), edges)
        operands.extend(number[edge[0]] for edge in edges)
        pointer.append(len(operands))
    return InstanceGraph.from_arrays(types, pointer, operands)


def _check_slots(node: Any, given: list[tuple[Any, Any, Any]], edges: list[tuple[Any, Any, int]]) -> None:
    """Refuse a node of which some operands have no slot, two have one, or a slot is left out."""
    named = [slot for _, _, slot in given if slot is not None]
    if not named:
        return
    if len(named) < len(given):
        producer = next(producer for producer, _, slot in given if slot is None)
        raise GraphError(f"edge {producer!r} -> {node!r} has no slot, others of {node!r} have one", "a slot for each")
    for position, (producer, _, slot) in enumerate(edges):
        if slot != position:
            two = position > 0 and edges[position - 1][2] == slot
            given_here = f"two operands for slot {slot}" if two else f"an operand from {producer!r} for slot {slot}"
            raise GraphError(f"node {node!r} has {given_here}", f"the slots 0 to {len(edges) - 1}, each once")


def to_networkx(graph: InstanceGraph) -> nx.MultiDiGraph[int]:
    """The nodes and edges of `graph` as a multi-digraph.

    Node attributes: ``type`` (the user's type id) and ``name``. Edge attributes: ``slot`` (position among the operands
    of the user that nodes produce), ``operand`` (position among all of its operands) and ``output`` (slot of the
    producer). Zero states and external rows have no producer and no edge. :func:`from_networkx` takes every such
    digraph; a graph of one-output nodes without zero states and external rows comes back as it was.
    """
    nx = _networkx()
    result = nx.MultiDiGraph()
    label = graph.type_label
    for node, type_id in enumerate(graph.node_type.tolist()):
        result.add_node(
            node, type=int(label[type_id]) if label is not None else type_id, name=graph.type_names[type_id]
        )
    user = np.repeat(np.arange(graph.num_nodes), np.diff(graph.operand_ptr))
    operand = np.arange(len(user)) - graph.operand_ptr[user]
    produced = np.flatnonzero(graph.operand_node >= 0)
    begin = np.searchsorted(user[produced], user[produced])
    slot = np.arange(len(produced)) - begin
    columns = (graph.operand_node[produced], user[produced], slot, operand[produced], graph.operand_value[produced])
    for producer, node, position, place, value in zip(*(column.tolist() for column in columns), strict=True):
        result.add_edge(producer, node, slot=position, operand=place, output=value % graph.stride)
    return result
