"""An explanation as one HTML page: figures, timeline, graph, reasons, memory."""

from __future__ import annotations

from html import escape

from edbatch_tvm.explanation.graph_drawing import DRAWN_NODES, draw_graph, drawn_instances
from edbatch_tvm.explanation.html import colour, document, first_of, html_table, legend
from edbatch_tvm.explanation.memory_drawing import memory_section
from edbatch_tvm.explanation.reasons import reason_of_gap, saved, step_time, why_indexed, why_no_fewer
from edbatch_tvm.explanation.record import CellExplanation, Explanation, TrainingExplanation
from edbatch_tvm.explanation.timeline import draw_timeline


def page(explanation: Explanation, title: str) -> str:
    """The page as one HTML document without outside references.

    Parameters
    ----------
    explanation : Explanation
    title : str
    """
    one = explanation
    return document(
        title,
        _cards(one),
        "<h2>Cells</h2>",
        _cells(one),
        "" if one.training is None else _training(one.training),
        "<h2>Batches</h2>",
        _timelines(one),
        "<h2>Why not fewer batches</h2>",
        _reasons(one),
        "<h2>Graph</h2>",
        _graph(one),
        memory_section(one.graph, one.plan, one.uses, one.trees),
        "<h2>Every batch</h2>",
        _batches(one),
    )


def _cards(one: Explanation) -> str:
    counts = {how: sum(cell.operands[how] for cell in one.cells) for how in ("contiguous", "broadcast", "indexed")}
    others = f"{counts['contiguous']:,} contiguous, {counts['broadcast']:,} broadcast"
    above = f"{one.batches / one.lower_bound:.2f} × the bound {one.lower_bound}" if one.lower_bound else "no nodes"
    stages = ", ".join(f"{name} {value * 1e3:.2f}" for name, value in one.seconds.items() if name != "total")
    equal = f", and {one.merged:,} equal to one of them" if one.merged else ""
    cards = [
        (f"{one.nodes:,}", f"nodes of {one.instances} instances{equal}"),
        (f"{one.batches:,}", f"batches, {above}"),
        (f"{one.seconds.get('total', 0.0) * 1e3:.2f} ms", stages),
        (
            f"{counts['indexed']:,}",
            f"indexed operands; {others}",
        ),
        (f"{one.plan.bytes_indexed / 1e3:,.0f} kB", "read through an index"),
        *(
            (f"{rows:,}", f"rows of {escape(name)}, read {times:,} times")
            for name, (times, rows) in one.products.items()
        ),
        (escape(one.policy), f"policy; plan {escape(one.plan_name)}, target {escape(one.target)}"),
    ]
    return (
        '<div class="cards">'
        + "".join(f'<div class="card"><b>{b}</b><span>{s}</span></div>' for b, s in cards)
        + "</div>"
    )


def _training(training: TrainingExplanation) -> str:
    backward = training.backward
    return (
        "<h2>Training step</h2>"
        f"<p>{escape(step_time(training))}. Saved for the backward pass: {escape(saved(training))}.</p>"
        f"<h3>Backward pass: {backward.nodes:,} nodes in {backward.batches:,} batches</h3>"
        f"{_cells(backward)}{_timelines(backward)}"
    )


def _name(one: Explanation, cell: str) -> str:
    type_id = one.graph.type_names.index(cell)
    return f'<i class="chip" style="background:{colour(type_id)}"></i>{escape(cell)}'


def _cells(one: Explanation) -> str:
    header = ("cell", "nodes", "batches", "largest", "longest path", "operands", "kB", "ms", "GFLOP/s", "kernels")
    text = "Operands: contiguous / broadcast / indexed. kB: read / of which through an index / written."
    rows = [_cell_row(one, cell) for cell in one.cells]
    return f"<p>{text}</p>{html_table(header, rows, text=(0, 9), scroll=False)}"


def _cell_row(one: Explanation, cell: CellExplanation) -> tuple[str, ...]:
    kernels = f"{len(cell.kernels)} {cell.path}"
    if cell.reason:
        kernels += f" ({escape(cell.reason)})"
    sizes = (cell.bytes_read, cell.bytes_indexed, cell.bytes_written)
    return (
        _name(one, cell.cell),
        f"{cell.nodes:,}",
        f"{cell.batches:,}",
        f"{cell.largest_batch:,}",
        f"{cell.longest_path:,}",
        " / ".join(f"{cell.operands[how]:,}" for how in ("contiguous", "broadcast", "indexed")),
        " / ".join(f"{size / 1e3:,.1f}" for size in sizes),
        "–" if cell.seconds is None else f"{cell.seconds * 1e3:.3f}",
        "–" if cell.gflops is None else f"{cell.gflops:,.0f}",
        kernels,
    )


def _reasons(one: Explanation) -> str:
    parts = []
    for cell in one.cells:
        lines = why_no_fewer(cell)
        if cell.indexed_why:
            lines.append(f"indexed operands: {why_indexed(cell)}")
        items = "".join(f"<li>{escape(line)}</li>" for line in lines)
        parts.append(f"<h3>{_name(one, cell.cell)}</h3><ul>{items}</ul>")
    return "".join(parts)


def _timelines(one: Explanation) -> str:
    names = one.graph.type_names
    text = "A box is a batch, its height grows with the logarithm of its nodes; point at one for its figures."
    parts = [
        f"<p>{text}</p>",
        first_of(len(one.steps), "batches"),
        legend(names, [names.index(cell.cell) for cell in one.cells]),
    ]
    if any(step.seconds for step in one.steps):
        parts.append("<h3>Over time, each batch run by itself</h3>" + draw_timeline(one, timed=True))
    parts.append("<h3>In order</h3>" + draw_timeline(one, timed=False))
    return "".join(parts)


def _graph(one: Explanation) -> str:
    instances = drawn_instances(one.graph)
    if not instances:
        return f"<p>The first instance has more than {DRAWN_NODES} nodes, too many to draw.</p>"
    which = "The instance" if one.instances == 1 else f"The first of {one.instances} instances"
    if instances > 1:
        which = f"The first {instances} of {one.instances} instances, one under the other"
    return (
        f"<p>{which}. Nodes of a column run in one batch, whose number is above it.</p>{legend(one.graph.type_names)}"
        f'<div class="scroll">{draw_graph(one.graph, one.plan.schedule, instances)}</div>'
    )


def _batches(one: Explanation) -> str:
    rows = (
        (
            str(step.batch),
            _name(one, step.cell),
            f"{step.nodes:,}",
            "–" if step.seconds is None else f"{step.seconds * 1e6:.1f}",
            escape(reason_of_gap(step)),
        )
        for step in one.steps
    )
    header = ("batch", "cell", "nodes", "µs", "why not with the batch before of its cell")
    return first_of(len(one.steps), "batches") + html_table(header, rows, text=(1, 4))
