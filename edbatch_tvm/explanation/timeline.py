"""The batches of a run drawn as SVG, a lane for each cell."""

from __future__ import annotations

from html import escape
from math import log2

from edbatch_tvm.explanation.html import SHOWN, colour
from edbatch_tvm.explanation.reasons import reason_of_gap
from edbatch_tvm.explanation.record import Explanation

_LANE, _LEFT, _WIDTH, _TOP = 26, 130, 1000, 18


def draw_timeline(explanation: Explanation, timed: bool) -> str:
    """Batches from left to right: over time, or one after the other at one width.

    The height of a box grows with the logarithm of its nodes. There are boxes for the first
    :data:`~edbatch_tvm.explanation.html.SHOWN` batches.

    Parameters
    ----------
    explanation : Explanation
    timed : bool
        Whether a box is as wide as its batch took; only if that was measured.
    """
    lane = {cell.cell: number for number, cell in enumerate(explanation.cells)}
    type_of = {name: type_id for type_id, name in enumerate(explanation.graph.type_names)}
    steps = explanation.steps[:SHOWN]
    lengths = [(step.seconds or 0.0) if timed else 1.0 for step in steps]
    scale = (_WIDTH - _LEFT) / (sum(lengths) or 1.0)
    largest = max((step.nodes for step in steps), default=1)
    bottom = _TOP + _LANE * len(lane)
    parts = _axis(sum(lengths), scale, bottom, timed)
    for name, number in lane.items():
        y = float(_TOP + _LANE * number)
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 17:.0f}" text-anchor="end">{escape(_short(name))}</text>')
        parts.append(f'<path d="M{_LEFT} {y + _LANE:.0f}H{_WIDTH}" stroke="#e5e9ed"/>')
    x = float(_LEFT)
    for step, length in zip(steps, lengths, strict=True):
        wide = length * scale
        high = (_LANE - 5) * (0.25 + 0.75 * log2(1 + step.nodes) / log2(1 + largest))
        y = _TOP + _LANE * (lane[step.cell] + 1) - high
        time = "" if step.seconds is None else f", {step.seconds * 1e6:.1f} µs"
        text = f"batch {step.batch}: {step.cell}, {step.nodes} nodes{time}\n{reason_of_gap(step)}"
        parts.append(
            f'<rect x="{x:.2f}" y="{y:.1f}" width="{max(wide - 0.4, 0.6):.2f}" height="{high:.1f}"'
            f' fill="{colour(type_of[step.cell])}"><title>{escape(text)}</title></rect>'
        )
        x += wide
    return f'<svg viewBox="0 0 {_WIDTH} {bottom + 4}" width="100%">{"".join(parts)}</svg>'


def _axis(total: float, scale: float, bottom: int, timed: bool) -> list[str]:
    """Lines at round numbers of microseconds or batches."""
    unit = 1e6 if timed else 1.0
    step = _round_step(total * unit / 8)
    parts = []
    for number in range(int(total * unit / step) + 1):
        at = number * step
        x = _LEFT + at / unit * scale
        label = f"{at:g} µs" if timed else f"{at:g}"
        anchor = "end" if x > _WIDTH - 30 else "middle"
        parts.append(f'<path d="M{x:.1f} {_TOP - 4}V{bottom}" stroke="#eef1f4"/>')
        parts.append(f'<text x="{x:.1f}" y="10" text-anchor="{anchor}">{label}</text>')
    return parts


def _round_step(least: float) -> float:
    """The least of 1, 2, 5, 10, 20, ... that is not below `least`."""
    step = 1.0
    while True:
        for factor in (1, 2, 5):
            if step * factor >= least:
                return step * factor
        step *= 10


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
