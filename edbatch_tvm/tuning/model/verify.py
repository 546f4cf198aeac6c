"""The tuned build on fresh data: right, and not slower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from edbatch_tvm.checking.comparison import TOLERANCE, compare
from edbatch_tvm.checking.reference import Function, run_reference
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.runtime import Model
from edbatch_tvm.tuning.kernels.search_result import FINAL_ROUNDS

NOISE = 0.03
"""By how much the tuned build may look slower than the default, as a share."""

MAGNIFIED = 1e-3
"""Largest relative error of the default build that can be rounding; beyond it the reference computes something else."""


@dataclass(frozen=True)
class Verification:
    """The tuned build beside the default, on minibatches that tuning did not see.

    Attributes
    ----------
    minibatches : int
    default_seconds, tuned_seconds : float
        Of executing all of them, the sum of the least times.
    max_relative_error : float
        Against the float64 reference where there is one, otherwise against the default build.
    default_relative_error : float
        Of the default build against the same; 0 where it is what results are held against. A cell that magnifies
        rounding has a large one.
    against : {"reference", "default"}
    """

    minibatches: int
    default_seconds: float
    tuned_seconds: float
    max_relative_error: float
    default_relative_error: float
    against: str

    @property
    def right(self) -> bool:
        """Whether the results are those of the reference, as nearly as float32 allows.

        Where a cell magnifies rounding (a softmax of large numbers does), the default build is off by more than the
        tolerance too; the tuned one sums in another order and may be off by as much again.
        """
        rounding = self.default_relative_error if self.default_relative_error <= MAGNIFIED else 0.0
        return self.max_relative_error <= max(TOLERANCE, 2 * rounding)

    @property
    def good(self) -> bool:
        """Whether the tuned build can stay."""
        return self.right and self.tuned_seconds <= self.default_seconds * (1 + NOISE)

    @property
    def gain(self) -> float:
        """Default time over tuned time."""
        return self.default_seconds / self.tuned_seconds


def verify(
    default: Model,
    tuned: Model,
    minibatches: Sequence[Sequence[InstanceGraph]],
    weights: Mapping[str, np.ndarray],
    reference: Mapping[str, Function] | None,
    rounds: int = FINAL_ROUNDS,
) -> Verification:
    """Run `minibatches` by both builds in turn, with the same schedules and plans, and compare results."""
    error = default_error = 0.0
    totals = [0.0, 0.0]
    for instances in minibatches:
        graph = default.merge(instances)
        schedule, _ = default.schedule(graph)
        plan = default.plan(graph, schedule)
        if reference is not None:
            expected = run_reference(graph, reference, weights)
            off = [compare(graph, model.execute(graph, plan), expected).relative_error for model in (default, tuned)]
            default_error = float(np.maximum(default_error, off[0]))
            error = float(np.maximum(error, off[1]))
        else:
            error = float(np.maximum(error, _difference(default, tuned, graph, plan)))
        times: list[list[float]] = [[], []]
        for _ in range(rounds):
            for model, seconds in zip((default, tuned), times, strict=True):
                begin = perf_counter()
                model.execute(graph, plan)
                seconds.append(perf_counter() - begin)
        totals = [total + min(seconds) for total, seconds in zip(totals, times, strict=True)]
    against = "default" if reference is None else "reference"
    return Verification(len(minibatches), totals[0], totals[1], error, default_error, against)


def _difference(default: Model, tuned: Model, graph: InstanceGraph, plan: Any) -> float:
    """Largest difference of the declared outputs, relative to their largest value."""
    expected, given = default.execute(graph, plan), tuned.execute(graph, plan)
    largest = difference = 0.0
    for instance in range(graph.num_instances):
        for one, other in zip(_tuple(expected[instance]), _tuple(given[instance]), strict=True):
            largest = max(largest, float(np.abs(one).max(initial=0.0)))
            difference = float(np.maximum(difference, np.abs(np.asarray(one) - other).max(initial=0.0)))
    return difference / largest if largest else difference


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
