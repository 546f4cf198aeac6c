"""The compiled kernel of weight gradients: values, any threads and CPUs, and NumPy's way beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.models import get_workload
from edbatch_tvm.runtime.threads import get_num_threads, largest_number
from edbatch_tvm.training.gradient_kernel import GradientKernel, GradientTables, compiled
from edbatch_tvm.training.gradient_layout import Columns, GradientLayout
from edbatch_tvm.training.vector_table import vector_table
from edbatch_tvm.training.weight_sums import sum_rows
from schedules.cpu.machine import AVX2, AVX512, BASELINE, Machine, host_target, machine_of
from schedules.cpu.weight_gradients import BLOCK, tiles_of
from tests.training.test_backward import WEIGHTS, Chain, random_cotangents, sentences

RNG = np.random.default_rng(0)


class Memory:
    """Rows of several widths, of which any may be read."""

    def __init__(self, rows: int, widths: tuple[int, ...], dtype: str) -> None:
        padded = sum(widths) + 16
        self.array = RNG.standard_normal((rows + 1, padded)).astype(dtype)
        self.array[:, sum(widths) :] = np.nan  # what the kernel reads behind a row leaves no trace
        begins = np.cumsum([0, *widths])
        self.parts = [slice(begin, begin + width) for begin, width in zip(begins[:-1].tolist(), widths, strict=True)]

    def addresses(self, number: int, rows: np.ndarray) -> np.ndarray:
        part = self.array[:, self.parts[number]]
        return part.__array_interface__["data"][0] + rows * part.strides[0]


def product(
    kernel: GradientKernel, left: tuple[int, ...], right: tuple[int, ...], nodes: int, joined: bool = False
) -> Any:
    """The kernel's product and sums of rows for sides of these widths, and what they are in float64.

    With `joined` all columns of the right side are columns of one gradient, and their sums of one.
    """
    dtype = np.dtype(kernel.dtype)
    one, two = Memory(40, left, kernel.dtype), Memory(40, right, kernel.dtype)
    chosen = [RNG.integers(0, 40, nodes) for _ in range(len(left) + len(right))]  # rows repeat
    layout = GradientLayout()
    rights = [Columns(width, 0, width, f"W{number}", f"b{number}") for number, width in enumerate(right)]
    if joined:
        begins = np.cumsum([0, *right]).tolist()
        rights = [Columns(width, begin, begins[-1], "W", "b") for width, begin in zip(right, begins, strict=False)]
    layout.add_product([Columns(width) for width in left], rights, [])
    table = vector_table(layout, kernel.tiles, dtype.itemsize)
    rows = [one.addresses(number, chosen[number]) for number in range(len(left))]
    rows += [two.addresses(number, chosen[len(left) + number]) for number in range(len(right))]
    gradients = [np.full(size, np.nan, dtype) for _, size in table.gradients]
    vectors = table.at(np.arange(len(chosen)) * nodes, gradients)
    ((first, lefts, many),) = table.sides
    none = np.zeros(1, np.int64)
    tables = GradientTables(
        np.concatenate([*rows, none]),
        np.array([[nodes, first, lefts, first + lefts, many]]),
        vectors,
        none,
        np.zeros((1, 5), np.int64),
        kernel.tiles.room(lefts, many),
        1 << 30,
    )
    matrices = [memory.array[:, part].astype(np.float64) for memory in (one, two) for part in memory.parts]
    taken = [matrix[own] for matrix, own in zip(matrices, chosen, strict=True)]
    whole = np.concatenate([*taken[: len(left)], np.empty((nodes, 0))], axis=1)
    expected = {f"W{number}": whole.T @ part for number, part in enumerate(taken[len(left) :])}
    expected |= {f"b{number}": part.sum(axis=0) for number, part in enumerate(taken[len(left) :])}

    if joined:
        beside = np.concatenate(taken[len(left) :], axis=1)
        expected = {"W": whole.T @ beside, "b": beside.sum(axis=0)}

    def run(_alive: tuple[Memory, ...] = (one, two)) -> dict[str, np.ndarray]:
        kernel.run(tables)
        return {name: each.copy() for (name, _), each in zip(table.gradients[1:], gradients[1:], strict=True)}

    return run, expected


def require_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], dtype: str) -> None:
    for name, right in expected.items():
        scale = max(np.abs(right).max(initial=0), 1e-3)
        tolerance = 1e-5 if dtype == "float32" else 1e-13
        np.testing.assert_allclose(found[name].reshape(right.shape) / scale, right / scale, rtol=0, atol=tolerance)


WIDTHS = [
    ((1,), (1,)),
    ((5, 3), (300,)),
    ((300,), (17, 5, 64)),
    ((16, 64), (16, 16, 16, 128, 9)),
    ((), (37, 80)),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products(dtype: str) -> None:
    kernel = GradientKernel(dtype)
    for left, right in WIDTHS:
        for nodes in (0, 1, 70, 3 * BLOCK + 1):
            for joined in (False, True):
                run, expected = product(kernel, left, right, nodes, joined)
                require_close(run(), expected, dtype)


def test_every_width() -> None:
    """All numbers of columns up to 300, on the left and on the right."""
    kernel = GradientKernel("float32")
    for width in range(1, 301, 7):
        for left, right, nodes in ((width, 301 - width, width % 71), (301 - width, width, 70 - width % 71)):
            run, expected = product(kernel, (left,), (right,), nodes)
            require_close(run(), expected, "float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_of_rows(dtype: str) -> None:
    kernel = GradientKernel(dtype)
    for width in (1, 5, 64, 77):
        for count, numbers in ((1, 1), (50, 50), (200, 7), (300, 100_000)):
            memory, rows = Memory(40, (width, 3), dtype).array[:, :width], RNG.integers(0, 40, count)
            index = RNG.integers(0, numbers, count)
            wanted_numbers, wanted = sum_rows(index, memory[rows])
            found_numbers, found = kernel.sum_rows(index, memory, rows)
            np.testing.assert_array_equal(found_numbers, wanted_numbers)
            require_close({"rows": found}, {"rows": wanted}, dtype)


def test_rows_that_have_numbers_of_their_own_are_no_sums() -> None:
    rows = RNG.standard_normal((3, 4))
    for index in ([0, 4, 5], [5, 0, 4], [4, 4, 0]):
        numbers, sums = sum_rows(np.array(index), rows)
        assert numbers.tolist() == sorted(set(index))
        np.testing.assert_array_equal(sums, [rows[np.array(index) == one].sum(0) for one in numbers])


def test_bits_do_not_depend_on_threads() -> None:
    kernel = GradientKernel("float32")
    before = get_num_threads()
    run, _ = product(kernel, (64, 64), (64, 64, 5, 100), 1000)
    try:
        results = []
        for threads in range(1, largest_number() + 1):
            eb.set_num_threads(threads)
            results += [run() for _ in range(10)]
    finally:
        eb.set_num_threads(before)
    for one in results:
        for name, value in one.items():
            np.testing.assert_array_equal(value, results[0][name])


@pytest.mark.parametrize("machine", [AVX512, AVX2, BASELINE])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tiles_fit_into_registers(machine: Machine, dtype: str) -> None:
    tiles = tiles_of(machine, dtype)
    assert tiles.lanes % tiles.rows == 0
    assert tiles.rows * tiles.vectors + tiles.vectors + machine.reserved <= machine.registers


def test_other_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code for AVX2, and for processors without it."""
    for cpu in ("haswell", "x86-64"):
        target = type(host_target())({"kind": "llvm", "mcpu": cpu})
        monkeypatch.setattr("edbatch_tvm.training.gradient_kernel.host_target", lambda target=target: target)
        monkeypatch.setattr("edbatch_tvm.training.gradient_kernel._library", compiled)
        kernel = GradientKernel("float32")
        assert kernel.tiles == tiles_of(machine_of(target), "float32")
        run, expected = product(kernel, (37, 64), (5, 100, 64), 200)
        require_close(run(), expected, "float32")


def require_same_ways(model: Any, instances: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled kernel and NumPy give the same gradients of one backward pass."""
    result = model(instances)
    cotangents = random_cotangents(result, result.graph.outputs.tolist())
    first = result.backward(cotangents, retain=True)
    with monkeypatch.context() as patch:
        patch.setattr(type(model._backward), "_compiled_sums", lambda *_: None)
        second = result.backward(cotangents)
    assert set(first) == set(second)
    for weight, value in second.items():
        np.testing.assert_allclose(first[weight], value, rtol=0, atol=1e-5 * max(np.abs(value).max(), 1e-3))


def test_numpy_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = eb.compile(Chain, WEIGHTS, training=True)
    require_same_ways(model, sentences(model), monkeypatch)
    result = model(sentences(model))
    made = model._backward._graphs.make(result.graph, result.plan, np.unique(result.graph.outputs).astype(np.int64))
    assert model._backward._compiled_sums(made.types, made.arrays) is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["treelstm", "childsum-tree", "lattice-lstm", "mvrnn"])
def test_numpy_computes_the_same_for_workloads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of tables, biases alone, rows of variadic operands, matrices as values."""
    workload = get_workload(name)
    model = eb.compile(workload.cells(9), workload.weights(9), training=True, database="none")
    require_same_ways(model, workload.generate(3, model.cells, seed=5), monkeypatch)
