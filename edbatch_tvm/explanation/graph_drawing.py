"""A small instance graph drawn as SVG: a column for each batch, a circle for each node."""

from __future__ import annotations

from html import escape

import numpy as np

from edbatch_tvm.batching import Schedule
from edbatch_tvm.explanation.html import colour
from edbatch_tvm.graph import InstanceGraph

_COLUMN, _ROW, _MARGIN, _RADIUS = 34, 20, 18, 7

DRAWN_NODES = 160
"""Graphs with more nodes are not drawn: the drawing would be unreadable."""


def drawn_instances(graph: InstanceGraph) -> int:
    """How many instances, from the first on, can be drawn together; 0 if the first is too large."""
    return int(np.searchsorted(graph.node_ptr, DRAWN_NODES, side="right")) - 1


def draw_graph(graph: InstanceGraph, schedule: Schedule, instances: int) -> str:
    """The first `instances` of a minibatch graph.

    Nodes of one column run in one batch. Columns in which these instances have no node are left out.

    Parameters
    ----------
    graph : InstanceGraph
    schedule : Schedule
        Of `graph`.
    instances : int
        See :func:`drawn_instances`.
    """
    nodes = int(graph.node_ptr[instances])
    batch_of = np.empty(graph.num_nodes, np.int64)
    batch_of[schedule.order] = np.repeat(np.arange(len(schedule)), np.diff(schedule.batch_ptr))
    batches = np.unique(batch_of[:nodes])
    column = np.searchsorted(batches, batch_of[:nodes])
    row, bottom = _rows(graph, column, instances)
    x = _MARGIN + _COLUMN * column
    y = _MARGIN + 14 + _ROW * row
    names, parts = graph.type_names, []
    for place, batch in enumerate(batches.tolist()):
        parts.append(f'<text x="{_MARGIN + _COLUMN * place}" y="12" text-anchor="middle">{batch}</text>')
    for node in range(nodes):
        producers = graph.operand_node[graph.operand_ptr[node] : graph.operand_ptr[node + 1]]
        parts.extend(_edge(int(x[p]), float(y[p]), int(x[node]), float(y[node])) for p in producers[producers >= 0])
    for node in range(nodes):
        kind = int(graph.node_type[node])
        text = escape(f"node {node}: {names[kind]}, batch {batch_of[node]}")
        parts.append(
            f'<circle cx="{x[node]}" cy="{y[node]:.0f}" r="{_RADIUS}" fill="{colour(kind)}">'
            f"<title>{text}</title></circle>"
        )
    width, height = 2 * _MARGIN + _COLUMN * (len(batches) - 1), 2 * _MARGIN + 14 + _ROW * (bottom + 0.5)
    return f'<svg width="{width}" height="{height:.0f}">{"".join(parts)}</svg>'


def _edge(x1: int, y1: float, x2: int, y2: float) -> str:
    """A curve; one that would run through the nodes of its row goes below them."""
    middle = (x1 + x2) / 2
    bend = min(10.0 + 0.06 * (x2 - x1), 0.8 * _ROW) if y1 == y2 and x2 - x1 > _COLUMN else 0.0
    path = f"M{x1} {y1:.0f}C{middle} {y1 + bend:.0f} {middle} {y2 + bend:.0f} {x2} {y2:.0f}"
    return f'<path d="{path}" fill="none" stroke="#b4bec8"/>'


def _rows(graph: InstanceGraph, column: np.ndarray, instances: int) -> tuple[np.ndarray, float]:
    """Row of each node, and the last one: as near to its operands as its column allows, instance under instance."""
    row = np.zeros(len(column))
    top = 0.0
    for instance in range(instances):
        first, last = graph.node_ptr[instance : instance + 2].tolist()
        own = np.arange(first, last)
        bottom = top
        for place in np.unique(column[first:last]):
            nodes = own[column[first:last] == place]
            wanted = [_wanted(graph, row, int(node), top) for node in nodes]
            free = top
            for at, node in sorted(zip(wanted, nodes.tolist(), strict=True)):
                row[node] = max(free, at)
                free = row[node] + 1
            bottom = max(bottom, free)
        top = bottom + 1
    return row, max(top - 2, 0.0)


def _wanted(graph: InstanceGraph, row: np.ndarray, node: int, top: float) -> float:
    producers = graph.operand_node[graph.operand_ptr[node] : graph.operand_ptr[node + 1]]
    producers = producers[producers >= 0]
    return float(row[producers].mean()) if len(producers) else top
