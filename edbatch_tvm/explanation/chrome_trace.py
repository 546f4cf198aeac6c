"""An explanation in the trace event format of Chrome (``chrome://tracing``) and https://ui.perfetto.dev."""

from __future__ import annotations

from typing import Any

from edbatch_tvm.explanation.reasons import reason_of_gap
from edbatch_tvm.explanation.record import Explanation

HOST = 0
"""Track of the stages of the run; the cells follow."""


def trace(explanation: Explanation) -> dict[str, Any]:
    """Complete events (``"ph": "X"``), times in microseconds.

    The host's stages come first on a track of their own. The batches follow where ``execute`` begins, each as long as
    it took by itself, or 1 µs where that was not measured.
    """
    events: list[dict[str, Any]] = [_named("process_name", HOST, "edbatch"), _named("thread_name", HOST, "host")]
    now = 0.0
    for stage in ("build", "schedule", "plan", "execute"):
        if stage == "execute":
            execute = now
        length = explanation.seconds.get(stage, 0.0) * 1e6
        events.append(_event(stage, "host", HOST, now, length, {}))
        now += length
    track = {cell.cell: number for number, cell in enumerate(explanation.cells, HOST + 1)}
    events.extend(_named("thread_name", number, cell) for cell, number in track.items())
    now = execute
    for step in explanation.steps:
        length = 1.0 if step.seconds is None else step.seconds * 1e6
        details = {**vars(step), "why": reason_of_gap(step)}
        events.append(_event(f"{step.cell} x {step.nodes}", "batch", track[step.cell], now, length, details))
        now += length
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _named(what: str, track: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": 0, "tid": track, "args": {"name": name}}


def _event(
    name: str, category: str, track: int, begin: float, length: float, details: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "cat": category,
        "ph": "X",
        "pid": 0,
        "tid": track,
        "ts": begin,
        "dur": length,
        "args": details,
    }
