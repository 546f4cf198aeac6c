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
    it took by itself, or 1 µs where that was not measured. A backward pass is a process of its own, after the forward
    pass.
    """
    events, end = _pass(explanation, 0, "edbatch", 0.0)
    if explanation.training is not None:
        events += _pass(explanation.training.backward, 1, "edbatch, backward pass", end)[0]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _pass(explanation: Explanation, process: int, name: str, begin: float) -> tuple[list[dict[str, Any]], float]:
    """The events of one pass, and when it ends."""
    head = _named("process_name", HOST, name), _named("thread_name", HOST, "host")
    events: list[dict[str, Any]] = list(head)
    now = execute = begin
    for stage in ("build", "schedule", "plan", "execute", "weights"):
        if stage == "execute":
            execute = now
        if stage in explanation.seconds:
            length = explanation.seconds[stage] * 1e6
            events.append(_event(stage, "host", HOST, now, length, {}))
            now += length
    end = now
    track = {cell.cell: number for number, cell in enumerate(explanation.cells, HOST + 1)}
    events.extend(_named("thread_name", number, cell) for cell, number in track.items())
    now = execute
    for step in explanation.steps:
        length = 1.0 if step.seconds is None else step.seconds * 1e6
        details = {**vars(step), "why": reason_of_gap(step)}
        events.append(_event(f"{step.cell} x {step.nodes}", "batch", track[step.cell], now, length, details))
        now += length
    return [{**event, "pid": process} for event in events], max(now, end)


def _named(what: str, track: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "tid": track, "args": {"name": name}}


def _event(
    name: str, category: str, track: int, begin: float, length: float, details: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "cat": category,
        "ph": "X",
        "tid": track,
        "ts": begin,
        "dur": length,
        "args": details,
    }
