"""The reasons and figures of an explanation as sentences, the same in the table and on the page."""

from __future__ import annotations

from collections import Counter

from edbatch_tvm.explanation.record import BatchExplanation, CellExplanation, TrainingExplanation


def why_no_fewer(cell: CellExplanation) -> list[str]:
    """Why a cell runs in no fewer batches: dependence, policy, shape, weights."""
    lines = [
        f"dependence: up to {cell.longest_path} of its nodes on one path, so {_batches(cell.longest_path)} or more"
    ]
    if cell.above_path:
        lines.append(f"policy: {_batches(cell.above_path)} more than that, by the order of the types{_waits(cell)}")
    if cell.ready:
        lines.append(f"policy: {cell.ready} nodes were ready for the batch before and were left out")
    for differs, count in Counter(one.differs for one in cell.alike).items():
        example = next(one for one in cell.alike if one.differs == differs)
        others = f" and {count - 1} more" if count > 1 else ""
        lines.append(f"{differs}: apart from {example.cell}{others}, of the same operators, for {example.detail}")
    return lines


def why_indexed(cell: CellExplanation) -> str:
    """Why operands of a cell are read through an index; empty where none is."""
    return "; ".join(f"{count} × {why}" for why, count in cell.indexed_why.items())


def reason_of_gap(step: BatchExplanation) -> str:
    """Why the nodes of a batch did not run in the batch of their cell before."""
    if step.previous is None:
        return "the first batch of its cell"
    parts = [
        (step.dependent, f"depend on batch {step.previous}"),
        (step.waiting, "waited for another cell"),
        (step.ready, "were ready and left out"),
    ]
    return ", ".join(f"{count} {what}" for count, what in parts if count)


def step_time(training: TrainingExplanation) -> str:
    """Where the time of a step goes."""
    names = {"weights": "gradients of weights", "refresh": "packing new weights"}
    total = training.seconds["total"]
    parts = [
        f"{names.get(name, name)} {seconds * 1e3:.2f} ({100 * seconds / total:.0f} %)"
        for name, seconds in training.seconds.items()
        if name != "total"
    ]
    return f"{total * 1e3:.2f} ms: {', '.join(parts)}"


def saved(training: TrainingExplanation) -> str:
    """What the forward pass saves."""
    if not training.saved_bytes:
        return "nothing"
    parts = ", ".join(f"{name} {size / 1e3:,.1f}" for name, size in training.saved_bytes.items())
    return f"{sum(training.saved_bytes.values()) / 1e3:,.1f} kB: {parts}"


def _waits(cell: CellExplanation) -> str:
    if not cell.waiting:
        return ""
    cells = ", ".join(list(cell.waited_for)[:3])
    return f": {cell.waiting} nodes missed the batch before, waiting for {cells}"


def _batches(count: int) -> str:
    return f"{count} batch" if count == 1 else f"{count} batches"
