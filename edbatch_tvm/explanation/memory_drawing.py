"""A memory plan drawn as SVG: arenas, and the PQ trees of the cells' layouts; and the page of a plan alone."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from edbatch_tvm.explanation.html import SHOWN, colour, document, first_of, html_table, legend
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import Plan, PQTree
from edbatch_tvm.memory.layout import signature_of
from edbatch_tvm.memory.operand_read_report import OperandUse
from edbatch_tvm.memory.pq_node import LEAF, Node, Q


def memory_page(
    title: str, graph: InstanceGraph, plan: Plan, uses: Sequence[OperandUse], trees: Mapping[str, PQTree]
) -> str:
    """The page of a memory plan as one HTML document without outside references.

    Parameters
    ----------
    title : str
    graph : InstanceGraph
    plan : Plan
    uses : sequence of OperandUse
        From :func:`edbatch_tvm.memory.operand_read_report.operand_read_report`.
    trees : mapping of str to PQTree
        The tree over the lanes of each cell, see :mod:`relay_ext.cell_layout`.
    """
    counts = Counter(use.how for use in uses)
    summary = ", ".join(f"{counts[how]} {how}" for how in ("contiguous", "broadcast", "indexed"))
    head = (
        f"<p>Plan <b>{escape(plan.name)}</b>: {len(plan.schedule)} batches, {summary} operands,"
        f" {plan.bytes_indexed:,} bytes read through an index.</p>"
    )
    return document(title, head, memory_section(graph, plan, uses, trees))


def memory_section(graph: InstanceGraph, plan: Plan, uses: Sequence[OperandUse], trees: Mapping[str, PQTree]) -> str:
    """Arenas, PQ trees and the table of operands."""
    drawn = "".join(
        f"<h3>{escape(cell)}</h3><div class='scroll'>{draw_tree(tree)}</div>" for cell, tree in trees.items()
    )
    inside = (
        "<h2>Layout inside cells</h2><p>PQ trees over the lanes of a cell's operators: the children of a circle may"
        f" stand in any order, those of a box in this one or the reverse.</p>{drawn}"
    )
    rows = (
        (
            str(use.batch),
            escape(use.cell),
            str(use.nodes),
            escape(use.operand),
            f'<span class="{use.how}">{use.how}</span>',
            f"{use.bytes:,}",
            escape(use.why),
        )
        for use in uses
    )
    header = ("batch", "cell", "nodes", "operand", "read", "bytes", "why indexed")
    return (
        "<h2>Arenas</h2><p>One buffer for each shape of values. Rows from left to right, coloured by the cell that"
        f" writes them; a line is a batch.</p>{legend(graph.type_names)}{draw_arenas(graph, plan)}"
        f"{inside if trees else ''}"
        f"<h2>Operands</h2>{first_of(len(uses), 'operands')}{html_table(header, rows, text=(1, 3, 4, 6))}"
    )


def draw_arenas(graph: InstanceGraph, plan: Plan, width: int = 1000) -> str:
    """One bar for each arena, as SVG, of at most :data:`~edbatch_tvm.explanation.html.SHOWN` pieces.

    A piece is one batch; where there would be more pieces, those that begin within the same tiny part of the bar are
    one.
    """
    signature = signature_of(graph)
    parts = []
    arena_of = signature.output_arena[graph.node_type]
    rows = plan.value_row.reshape(graph.num_nodes, signature.stride)
    batch_of = np.empty(graph.num_nodes, np.int64)
    batch_of[plan.schedule.order] = np.repeat(np.arange(len(plan.schedule)), np.diff(plan.schedule.batch_ptr))
    for arena, (spec, count) in enumerate(zip(signature.value_specs, plan.arena_rows, strict=True)):
        y = 14 + 50 * arena
        parts.append(f'<text x="0" y="{y}">{escape(str(spec))}, {count} rows</text>')
        parts.append(f'<rect x="0" y="{y + 5}" width="{width}" height="22" fill="#eef1f4"/>')
        kind = np.full(count, -1)
        batch = np.full(count, -1)
        node, slot = np.nonzero(arena_of == arena)
        kind[rows[node, slot]] = graph.node_type[node]
        batch[rows[node, slot]] = batch_of[node]
        begins = np.flatnonzero(np.diff(batch, prepend=-2))
        if len(begins) > SHOWN:
            begins = begins[np.unique(begins * SHOWN // count, return_index=True)[1]]
        for low, high in itertools.pairwise([*begins.tolist(), count]):
            if kind[low] >= 0:
                x, wide = low / count * width, (high - low) / count * width
                text = f"batch {batch[low]}: {high - low} rows of {graph.type_names[kind[low]]}"
                if batch[low] != batch[high - 1]:
                    text = f"batches {batch[low]} to {batch[high - 1]}: {high - low} rows"
                parts.append(
                    f'<rect x="{x:.2f}" y="{y + 5}" width="{wide:.2f}" height="22" stroke="#fff" stroke-width="0.5"'
                    f' fill="{colour(kind[low])}"><title>{escape(text)}</title></rect>'
                )
    height = 50 * len(plan.arena_rows)
    return f'<svg viewBox="0 0 {width} {height}" width="100%">{"".join(parts)}</svg>'


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
        edges = "".join(f'<path d="M{x} {y}L{place} {y + step - 10}" stroke="#9aa5b1"/>' for place in places)
        if node.kind == Q:
            mark = f'<rect x="{x - 14}" y="{y - 9}" width="28" height="18" fill="#f28e2b"><title>Q</title></rect>'
        else:
            mark = f'<circle cx="{x}" cy="{y}" r="9" fill="#4e79a7"><title>P</title></circle>'
        shapes.append(edges + mark)
        return x

    draw(tree.root, 0)
    return f'<svg width="{40 + gap * leaves}" height="{40 + step * depth}">{"".join(shapes)}</svg>'
