"""The region in which several threads run a part that :class:`~relay_ext.workshare_loops.WorkshareLoops` made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules.cpu.work_sharing import PATIENCE, ROW

ALL_TASKS, CLEAR_BOARD = -1, -2
"""Instead of the number of a task: all of them, in a region; and only what comes before the first of them."""


def parallel_region(
    tasks: Any, board: Any, sharing: str, call: Callable[[Any, Any], None], boards: Any = 1, task: Any = ALL_TASKS
) -> None:
    """Write code that runs in `tasks` threads, or in this one alone.

    Where there are several boards, each is that of a thread which waits for nobody. The others help it at the end,
    and begin at once: there is no other work for them.

    Parameters
    ----------
    tasks : expression
    board : buffer
        Where threads claim work; see :mod:`schedules.cpu.work_sharing`. It has `boards` boards, one after the other.
    sharing : str
        LLVM IR of the functions that parts call.
    call : callable
        Writes what a thread does, by its number and how many there are.
    boards : expression, optional
    task : expression, optional
        The task to run, on a board that was cleared before, if threads that call this divide them among themselves;
        or :data:`ALL_TASKS`, or :data:`CLEAR_BOARD`.
    """
    with T.attr(0, "pragma_import_llvm", sharing):
        with T.If(task < 0), T.Then(), T.serial(0, boards * (tasks + 1)) as row:
            T.buffer_store(board, tirx.const(0, "int64"), [row * ROW])
            waits = tirx.all(row % (tasks + 1) > 0, boards == 1)
            patience = tirx.if_then_else(waits, tirx.const(PATIENCE, "int64"), tirx.const(0, "int64"))
            T.buffer_store(board, patience, [row * ROW + 1])
        with T.If(task > CLEAR_BOARD), T.Then(), T.If(tirx.any(tasks == 1, task >= 0)):
            with T.Then():
                call(tirx.max(task, 0), tasks)
            with T.Else(), T.attr(0, "pragma_parallel_launch_point", 1), T.parallel(0, tasks) as one:
                call(one, tasks)
