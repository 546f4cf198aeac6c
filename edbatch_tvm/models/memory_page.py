"""A page that shows a memory plan: arenas, operands, and the PQ trees of the cells' layouts, drawn as SVG."""

from __future__ import annotations

import itertools
from collections import Counter
from html import escape

import numpy as np

from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import Plan, PQTree
from edbatch_tvm.memory.pq_node import LEAF, Node, Q
from edbatch_tvm.memory.uses import OperandUse

_COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#edc948", "#76b7b2", "#9c755f", "#bab0ac")
_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;margin:2em auto;max-width:72em;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.15em .8em;text-align:left;border-bottom:1px solid #ddd}"
    "svg{display:block;margin:.5em 0}.indexed{color:#b00}"
)


def memory_page(title: str, graph: InstanceGraph, plan: Plan, uses: list[OperandUse], trees: dict[str, PQTree]) -> str:
    """The page as one HTML document without outside references.

    Parameters
    ----------
    title : str
    graph : InstanceGraph
    plan : Plan
    uses : list of OperandUse
        From :func:`edbatch_tvm.memory.uses.operand_uses`.
    trees : dict of str to PQTree
        The tree over the lanes of each cell, see :mod:`relay_ext.plan_cell`.
    """
    rows = "".join(
        f"<tr><td>{use.batch}</td><td>{escape(use.cell)}</td><td>{use.nodes}</td><td>{escape(use.operand)}</td>"
        f"<td class={use.how}>{use.how}</td><td>{escape(use.why)}</td></tr>"
        for use in uses
    )
    counts = Counter(use.how for use in uses)
    summary = ", ".join(f"{counts[how]} {how}" for how in ("contiguous", "broadcast", "indexed"))
    drawn = "".join(f"<h3>{escape(cell)}</h3>{draw_tree(tree)}" for cell, tree in trees.items())
    return (
        f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(title)}</h1><p>Plan <b>{escape(plan.name)}</b>: {len(plan.schedule)} batches, {summary} operands,"
        f" {plan.bytes_indexed:,} bytes read through an index.</p>"
        f"<h2>Arenas</h2><p>Rows from left to right, coloured by the cell that writes them; a line is a batch.</p>"
        f"{draw_arenas(graph, plan)}"
        f"<h2>Layout inside cells</h2><p>PQ trees over the lanes of a cell's operators: the children of a circle may"
        f" stand in any order, those of a box in this one or the reverse.</p>{drawn}"
        f"<h2>Operands</h2><table><tr><th>batch<th>cell<th>nodes<th>operand<th>read<th>why</tr>{rows}</table>"
    )


def draw_arenas(graph: InstanceGraph, plan: Plan, width: int = 1000) -> str:
    """One bar for each arena, as SVG."""
    signature = graph.signature
    assert signature is not None
    parts = []
    legend = " ".join(
        f'<tspan fill="{_COLOURS[i % len(_COLOURS)]}">■</tspan> {escape(cell.name)}' for i, cell in enumerate(signature)
    )
    arena_of = signature.output_arena[graph.node_type]
    rows = plan.value_row.reshape(graph.num_nodes, signature.stride)
    batch_of = np.empty(graph.num_nodes, np.int64)
    batch_of[plan.schedule.order] = np.repeat(np.arange(len(plan.schedule)), np.diff(plan.schedule.batch_ptr))
    for arena, (spec, count) in enumerate(zip(signature.value_specs, plan.arena_rows, strict=True)):
        y = 30 + 50 * arena
        parts.append(f'<text x="0" y="{y}">{escape(str(spec))}, {count} rows</text>')
        parts.append(f'<rect x="0" y="{y + 5}" width="{width}" height="22" fill="#eee"/>')
        kind = np.full(count, -1)
        batch = np.full(count, -1)
        node, slot = np.nonzero(arena_of == arena)
        kind[rows[node, slot]] = graph.node_type[node]
        batch[rows[node, slot]] = batch_of[node]
        edges = [*np.flatnonzero(np.diff(batch, prepend=-2)).tolist(), count]
        for low, high in itertools.pairwise(edges):
            if kind[low] >= 0:
                x, wide = low / count * width, (high - low) / count * width
                parts.append(
                    f'<rect x="{x:.2f}" y="{y + 5}" width="{wide:.2f}" height="22" stroke="#fff" stroke-width="0.5"'
                    f' fill="{_COLOURS[kind[low] % len(_COLOURS)]}"><title>batch {batch[low]}: {high - low} rows'
                    f"</title></rect>"
                )
    height = 30 + 50 * len(plan.arena_rows)
    return f'<svg viewBox="0 0 {width} {height}" width="100%"><text x="0" y="12">{legend}</text>{"".join(parts)}</svg>'


def draw_tree(tree: PQTree, gap: int = 34, step: int = 46) -> str:
    """A PQ tree as SVG: circles for P nodes, boxes for Q nodes, numbers for leaves."""
    shapes: list[str] = []
    leaves = 0
    depth = 0

    def draw(node: Node, level: int) -> float:
        nonlocal leaves, depth
        depth = max(depth, level)
        y = 20 + step * level
        if node.kind == LEAF:
            x = 20.0 + gap * leaves
            leaves += 1
            shapes.append(f'<text x="{x}" y="{y + 5}" text-anchor="middle">{node.leaf}</text>')
            return x
        places = [draw(child, level + 1) for child in node.child_list()]
        x = sum(places) / len(places)
        edges = "".join(f'<path d="M{x} {y}L{place} {y + step - 10}" stroke="#999"/>' for place in places)
        if node.kind == Q:
            mark = f'<rect x="{x - 14}" y="{y - 9}" width="28" height="18" fill="#f28e2b"/>'
        else:
            mark = f'<circle cx="{x}" cy="{y}" r="9" fill="#4e79a7"/>'
        shapes.append(edges + mark)
        return x

    draw(tree.root, 0)
    return f'<svg width="{40 + gap * leaves}" height="{40 + step * depth}">{"".join(shapes)}</svg>'
