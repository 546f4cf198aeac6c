"""A training step explained: both passes, what one saves for the other, and where the time goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.runtime import Result
from edbatch_tvm.training import TrainingModel, TrainingResult
from edbatch_tvm.training.cotangents import as_cotangents
from edbatch_tvm.training.gradients import Gradients

Optimizer = Callable[[Gradients], Mapping[str, Any] | None]
"""Changes the model's weights, in place, by their gradients; may return the rows that :meth:`Model.refresh` takes."""

PARTS = ("forward", "backward", "weights", "optimizer", "refresh")
"""Of a step: both passes, the gradients of weights, the optimizer, and packing of the new weights."""


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """One step.

    Attributes
    ----------
    result : TrainingResult
    gradients : Gradients
        Of the sum of all declared outputs.
    seconds : dict of str to float
        The time of each of :data:`PARTS`, without ``optimizer`` where there is none, and ``total``.
    saved_bytes : dict of str to int
        What the nodes of each cell save for the backward pass, besides their outputs.
    """

    result: TrainingResult = field(repr=False)
    gradients: Gradients = field(repr=False)
    seconds: dict[str, float]
    saved_bytes: dict[str, int]


def run_step(model: TrainingModel, instances: Sequence[InstanceGraph], optimizer: Optimizer | None) -> TrainingStep:
    """Run a forward pass, the backward pass of the sum of all declared outputs, and a step of the optimizer."""
    times = [perf_counter()]
    result = model(instances)
    times.append(perf_counter())
    assert isinstance(result, TrainingResult)
    cotangents = as_cotangents(result, _ones(result))
    before = perf_counter()
    gradients = result.backward_of(cotangents, retain=True)
    passed = perf_counter() - before
    weights = gradients.report.seconds["weights"]
    seconds = {"forward": times[1] - times[0], "backward": passed - weights, "weights": weights}
    rows: Mapping[str, Any] | None = None
    if optimizer is not None:
        before = perf_counter()
        rows = optimizer(gradients)
        seconds["optimizer"] = perf_counter() - before
    before = perf_counter()
    model.refresh(rows=rows or {})
    seconds["refresh"] = perf_counter() - before
    seconds["total"] = sum(seconds.values())
    counts = np.bincount(result.report.graph.node_type, minlength=len(model.signature)).tolist()
    saved = {
        name: size * count
        for (name, size), count in zip(model.saved_bytes.items(), counts, strict=True)
        if size * count
    }
    return TrainingStep(result, gradients, seconds, saved)


def _ones(result: Result) -> dict[int, np.ndarray]:
    """A cotangent of ones for every declared output."""
    return {value: np.ones_like(result.value(value)) for value in np.unique(result.graph.outputs).tolist()}
