"""Kernels joined into a program: each item of each loop is run once, and batches wait for each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import tirx
from tvm.script import ir as I
from tvm.script import tirx as T

from edbatch_tvm.graph import CellSignature, Signature, ValueSpec
from edbatch_tvm.runtime import threads
from relay_ext.join_model_kernels import JoinModelKernels
from relay_ext.parallel_region import ALL_TASKS
from relay_ext.workshare_loops import WorkshareLoops, operations
from schedules.cpu.machine import host_target
from schedules.cpu.tir_pipeline import KERNEL_PIPELINE
from schedules.cpu.work_sharing import ROW, sharing_ir
from tests.golden import Golden

ROWS = 4096
CELLS = Signature(
    [CellSignature("turn", (), (), (ValueSpec((16,)),)), CellSignature("odd", (), (), (ValueSpec((16,)),))]
)


@I.ir_module
class Kernels:
    @T.prim_func
    def turn(
        step: T.int32,
        steps: T.Buffer(("batches", "columns"), "int32", align=4),
        index: T.Buffer(("indices",), "int32", align=4),
        arena0: T.Buffer(("rows0", 16), "float32"),
    ):
        # From one half of the arena to the other, in reverse: each item reads what another thread wrote.
        T.func_attr(
            {
                "edbatch.arguments": ["arena:0"],
                "edbatch.cell": "turn",
                "edbatch.order": 0,
                "edbatch.path": "general",
                "tirx.noalias": True,
            }
        )
        n: T.let = steps[step, 1]
        source: T.let = steps[step, 4]
        target: T.let = steps[step, 5]
        for i in T.parallel(n):
            for _repeat in range(index[0]):
                for j in T.vectorized(16):
                    arena0[target + i, j] = arena0[source + n - 1 - i, j] + T.float32(1)

    @T.prim_func
    def odd(
        step: T.int32,
        steps: T.Buffer(("batches", "columns"), "int32", align=4),
        index: T.Buffer(("indices",), "int32", align=4),
        arena0: T.Buffer(("rows0", 16), "float32"),
    ):
        # A store outside the loop, a loop in a loop, and two loops one after the other.
        T.func_attr(
            {
                "edbatch.arguments": ["arena:0"],
                "edbatch.cell": "odd",
                "edbatch.order": 0,
                "edbatch.path": "general",
                "tirx.noalias": True,
            }
        )
        arena0[0, 0] = arena0[0, 0] + T.float32(1)
        for i in T.parallel(2):
            for j in T.parallel(8):
                arena0[0, 8 * i + j] = arena0[0, 8 * i + j] + T.float32(1)
        for i in T.parallel(steps[step, 1]):
            arena0[1, i] = arena0[0, i]


@pytest.fixture(scope="module")
def joined() -> tvm.IRModule:
    return JoinModelKernels(CELLS, "; the functions of work_sharing.py")(WorkshareLoops()(Kernels))


@pytest.fixture(scope="module")
def program() -> Any:
    threads.prepare_threads()
    target = host_target()
    module = JoinModelKernels(CELLS, sharing_ir(target))(WorkshareLoops()(Kernels))
    return tvm.compile(module, target=target, tir_pipeline=KERNEL_PIPELINE)["program"]


def test_text(golden: Golden, joined: tvm.IRModule) -> None:
    turn = tvm.IRModule({var: function for var, function in joined.functions.items() if "turn" in var.name_hint})
    golden("program/turn.txt", turn.script())
    golden("program/run_steps.txt", joined["run_steps"].script())
    golden("program/program.txt", joined["program"].script())


def test_arguments(joined: tvm.IRModule) -> None:
    assert [str(text) for text in joined["program"].attrs["edbatch.arguments"]] == ["arena:0"]


def run(
    program: Any, tasks: int, steps: np.ndarray, arena: Any, work: int = 1, ends: tuple[int, ...] = ()
) -> np.ndarray:
    """Run all of `steps`, in shares that end there; the board afterwards."""
    shares = np.array([0, *(ends or (len(steps),))], np.int32)
    board = tvm.runtime.tensor(np.full((len(shares) - 1) * (1 + tasks) * ROW, -1))
    none = np.zeros((1, 5), np.int32), np.zeros(1, np.int32), np.array([[0], [1]], np.int64)
    program(tasks, ALL_TASKS, shares, board, steps, np.array([work], np.int32), *none, arena)
    return board.numpy()


def turns(counts: list[int]) -> np.ndarray:
    halves = [(0, ROWS), (ROWS, 0)]
    return np.array([(0, n, 0, 0, *halves[number % 2]) for number, n in enumerate(counts)], np.int32)


@pytest.mark.parametrize("tasks", [1, 2, 3, 5])
@pytest.mark.parametrize("work", [1, 400])
def test_every_item_once_and_batches_in_order(program: Any, tasks: int, work: int) -> None:
    rng = np.random.default_rng(tasks)
    steps = turns([*rng.integers(1, 40, 100), *rng.integers(1, 900 // work + 2, 60), 0, 1, ROWS if work == 1 else 7])
    start = rng.uniform(-1, 1, (2 * ROWS, 16)).astype(np.float32)
    arena = tvm.runtime.tensor(start)
    for _ in range(5):
        run(program, tasks, steps, arena, work)
        for _, n, _, _, source, target in steps:
            start[target : target + n] = start[source : source + n][::-1] + 1
        np.testing.assert_array_equal(arena.numpy(), start)


SPAN = 40
"""Rows of each half of what a share reads and writes."""


def share_turns(counts: list[list[int]]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Steps of shares that read and write rows of their own, and where those of each share end."""
    steps = []
    for share, own in enumerate(counts):
        low, high = 2 * SPAN * share, 2 * SPAN * share + SPAN
        steps += [(0, n, 0, 0, *((low, high) if number % 2 == 0 else (high, low))) for number, n in enumerate(own)]
    return np.array(steps, np.int32), tuple(np.cumsum([len(own) for own in counts]).tolist())


@pytest.mark.parametrize("tasks", [1, 2, 3, 5])
@pytest.mark.parametrize("shares", [2, 3, 5])
@pytest.mark.parametrize("pool", [1, None])
def test_shares_wait_for_nobody(
    program: Any, tasks: int, shares: int, pool: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More or fewer threads than shares; a pool of one thread, which runs what others would have begun with."""
    monkeypatch.setattr(threads, "_wanted", pool)
    threads.use_threads()
    rng = np.random.default_rng(shares)
    counts = [rng.integers(1, SPAN + 1, 30 * (1 + share)).tolist() for share in range(shares)]
    steps, ends = share_turns(counts)
    start = rng.uniform(-1, 1, (2 * ROWS, 16)).astype(np.float32)
    arena = tvm.runtime.tensor(start)
    for work in (1, 300):
        board = run(program, tasks, steps, arena, work, ends).reshape(shares, 1 + tasks, ROW)
        for _, n, _, _, source, target in steps:
            start[target : target + n] = start[source : source + n][::-1] + 1
        np.testing.assert_array_equal(arena.numpy(), start)
        # Every loop is counted on the board of its share alone: there is one end for each share, and no barrier else.
        assert (board[:, 0, 0] >> 32).tolist() == [len(own) for own in counts]
        assert (board[:, 0, 0] & 0xFFFFFFFF).tolist() == [own[-1] for own in counts]
    monkeypatch.undo()
    threads.use_threads()


def test_stores_outside_loops(program: Any) -> None:
    for tasks in (1, 2):
        arena = tvm.runtime.tensor(np.zeros((2, 16), np.float32))
        run(program, tasks, np.array([[1, 3, 0, 0, 0, 0]] * 4, np.int32), arena)
        np.testing.assert_array_equal(arena.numpy()[0], [8] + [4] * 15)
        np.testing.assert_array_equal(arena.numpy()[1], [8, 4, 4] + [0] * 13)


def test_more_tasks_than_threads(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_wanted", 1)
    assert threads.use_threads() == 1
    arena = tvm.runtime.tensor(np.zeros((2 * ROWS, 16), np.float32))
    run(program, 3, turns([ROWS, ROWS]), arena)
    assert (arena.numpy()[:ROWS] == 2).all()
    monkeypatch.undo()
    threads.use_threads()


def test_small_batches_stay_in_one_thread(program: Any) -> None:
    arena = tvm.runtime.tensor(np.zeros((2 * ROWS, 16), np.float32))
    board = run(program, 2, turns([3] * 50), arena)
    first, second = board[ROW], board[2 * ROW]
    assert (first, second) == ((50 << 32) + 1, 0)


def test_estimated_operations() -> None:
    loops: list[Any] = []
    tvm_ffi.structural_walk(Kernels["turn"].body, (tirx.For, loops.append))
    over_columns, over_repeats, _ = sorted(operations(loop) for loop in loops)
    assert 0 < over_columns < over_repeats
