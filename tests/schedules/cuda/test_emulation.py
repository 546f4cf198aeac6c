"""Kernels for GPUs as loops on the CPU: the same code, held against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edbatch_tvm.models import WORKLOADS
from tests.schedules.cuda.emulated import check_workload

QUICK = ("treelstm", "treegru", "childsum-tree", "mvrnn", "random-dag")
"""Between them: one stage and two, general cells with and without variadic rows, reductions, lookups of matrices."""


SLOW = pytest.mark.slow


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=SLOW) for name in WORKLOADS])
@pytest.mark.parametrize("launch", [pytest.param("batch", marks=SLOW), "schedule"])
def test_equal_to_the_reference(name: str, launch: str) -> None:
    result = check_workload(name, 8, 4, launch=launch)
    assert result.report.kernel_calls == (1 if launch == "schedule" else _stages(result))


@pytest.mark.parametrize("fill", [1, 100_000], ids=["wide", "narrow"])
@pytest.mark.parametrize(
    ("name", "hidden", "count"),
    [("treelstm", 20, 6), pytest.param("treegru", 36, 8, marks=SLOW), pytest.param("grid-lstm", 24, 3, marks=SLOW)],
)
def test_tiles_with_rows_and_columns_and_k_that_do_not_fill_them(name: str, hidden: int, count: int, fill: int) -> None:
    result = check_workload(name, hidden, count, fill=fill)
    counts = result.plan.steps[:, 1]
    assert counts.max() > 64
    assert (counts % 64).any()


@pytest.mark.parametrize("name", ["childsum-tree", pytest.param("treegru", marks=SLOW)])
def test_the_order_of_threads_and_blocks_does_not_matter(name: str) -> None:
    forwards, backwards = (check_workload(name, 20, 6, backwards=turned) for turned in (False, True))
    for one, other in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_launch_and_many_give_the_same_bits() -> None:
    schedule, batch = (check_workload("treegru", 12, 3, launch=launch) for launch in ("schedule", "batch"))
    for one, other in zip(schedule, batch, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (schedule.report.kernel_calls, batch.report.kernel_calls) == (1, _stages(batch))


def _stages(result: Any) -> int:
    kernels = [len(result.kernel_names[cell]) for cell in result.graph.signature.names]
    return sum(kernels[type_id] for type_id in result.schedule.batch_type.tolist())
