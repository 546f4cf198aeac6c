"""Kernels for GPUs as loops on the CPU: the same code, held against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from edbatch_tvm.models import WORKLOADS
from schedules.cuda.kernels import Occupancy
from schedules.cuda.product_precision import PRODUCTS
from tests.schedules.cuda.emulated import check_workload, emulated_model

QUICK = ("treelstm", "childsum-tree", "mvrnn", "random-dag")
"""Between them: one stage and several, stages over variadic rows, of matrices, reductions, lookups of matrices."""


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


@pytest.mark.parametrize("hidden", [68, pytest.param(64, marks=SLOW)])
def test_matrices_that_fill_tiles_and_that_do_not(hidden: int) -> None:
    result = check_workload("mvrnn", hidden, 1)
    assert [len(result.kernel_names[cell]) for cell in ("leaf", "internal", "readout")] == [2, 3, 1]


@pytest.mark.parametrize("name", ["childsum-tree", pytest.param("treegru", marks=SLOW)])
def test_the_order_of_threads_and_blocks_does_not_matter(name: str) -> None:
    forwards, backwards = (check_workload(name, 20, 6, backwards=turned) for turned in (False, True))
    for one, other in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [("bfloat16", 8), pytest.param("tfloat32", 11, marks=SLOW), pytest.param("float16", 11, marks=SLOW)],
)
@pytest.mark.parametrize("fill", [1, 100_000], ids=["wide", "narrow"])
def test_tensor_cores(dtype: str, bits: int, fill: int) -> None:
    result = check_workload("treelstm", 20, 6, fill=fill, products=PRODUCTS[dtype], tolerance=2.0**-bits)
    assert result.relative_error > 1e-5, "nothing was rounded"


K, COLUMNS = 40, 24


@I.ir_module
class Product:
    @R.function
    def product(x: R.Tensor((K,), "float32"), W: R.Tensor((K, COLUMNS), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            y = R.matmul(x, W)
            R.output(y)
        return y


@pytest.mark.parametrize("dtype", ["bfloat16", "tfloat32"])
@pytest.mark.parametrize("fill", [1, 100_000], ids=["wide", "narrow"])
def test_products_of_small_integers_are_exact(dtype: str, fill: int, rng: np.random.Generator) -> None:
    x = rng.integers(-8, 9, (70, K)).astype(np.float32)
    weights = {"W": rng.integers(-8, 9, (K, COLUMNS)).astype(np.float32)}
    model = emulated_model(Product, weights, products=PRODUCTS[dtype], machine=Occupancy(fill=fill))
    b = model.builder()
    result = model([b.finish(b.call("product", row)) for row in x])
    np.testing.assert_array_equal(np.stack([np.asarray(one) for one in result]), x @ weights["W"])


def test_one_launch_and_many_give_the_same_bits() -> None:
    schedule, batch = (check_workload("treegru", 12, 3, launch=launch) for launch in ("schedule", "batch"))
    for one, other in zip(schedule, batch, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (schedule.report.kernel_calls, batch.report.kernel_calls) == (1, _stages(batch))


def _stages(result: Any) -> int:
    kernels = [len(result.kernel_names[cell]) for cell in result.graph.signature.names]
    return sum(kernels[type_id] for type_id in result.schedule.batch_type.tolist())
