"""An explanation as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from edbatch_tvm.explanation.reasons import saved, step_time, why_indexed, why_no_fewer
from edbatch_tvm.explanation.record import CellExplanation, Explanation, TrainingExplanation

HEADER = ("cell", "nodes", "batches", "largest", "path", "contig.", "bcast", "indexed", "kB idx", "ms", "GFLOP/s", "by")


def _equal(explanation: Explanation) -> str:
    return f" (and {explanation.merged} equal to one of them)" if explanation.merged else ""


def table(explanation: Explanation) -> str:
    """The explanation as text: figures of each cell, then what keeps it from fewer batches.

    Where the model trains, the figures of the backward pass are between, and before them what the forward pass saves
    and where the time of a step goes.
    """
    lines = [
        f"{explanation.instances} instances, {explanation.nodes} nodes{_equal(explanation)}"
        f" in {explanation.batches} batches"
        f" (lower bound {explanation.lower_bound}), policy {explanation.policy}, plan {explanation.plan_name}",
        f"{_stages(explanation.seconds)}; target {explanation.target}",
        *(f"{name}: {rows} rows, read {times} times" for name, (times, rows) in explanation.products.items()),
        "",
        *_aligned([HEADER, *map(_row, explanation.cells)]),
        "",
    ]
    if explanation.training is not None:
        lines += _training(explanation.training)
    for cell in explanation.cells:
        kernels = ", ".join(cell.kernels)
        lines.append(f"{cell.cell}: {kernels}" + (f"; general, for {cell.reason}" if cell.reason else ""))
        lines.extend(f"  {line}" for line in why_no_fewer(cell))
        if cell.indexed_why:
            lines.append(f"  indexed: {why_indexed(cell)}")
    return "\n".join(lines)


def _training(training: TrainingExplanation) -> list[str]:
    backward = training.backward
    return [
        f"a step: {step_time(training)}",
        f"saved for the backward pass: {saved(training)}",
        f"backward pass: {backward.nodes} nodes in {backward.batches} batches, {_stages(backward.seconds)}",
        "",
        *_aligned([HEADER, *map(_row, backward.cells)]),
        "",
    ]


def _stages(seconds: dict[str, float]) -> str:
    parts = ", ".join(f"{name} {value * 1e3:.2f}" for name, value in seconds.items() if name != "total")
    return f"{seconds.get('total', 0.0) * 1e3:.2f} ms: {parts}"


def _row(cell: CellExplanation) -> tuple[str, ...]:
    return (
        cell.cell,
        str(cell.nodes),
        str(cell.batches),
        str(cell.largest_batch),
        str(cell.longest_path),
        *(str(cell.operands[how]) for how in ("contiguous", "broadcast", "indexed")),
        f"{cell.bytes_indexed / 1e3:.1f}",
        "-" if cell.seconds is None else f"{cell.seconds * 1e3:.3f}",
        "-" if cell.gflops is None else f"{cell.gflops:.0f}",
        cell.path,
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns: the first and last to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return [
        "  ".join(
            text.ljust(width) if column in (0, last) else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
