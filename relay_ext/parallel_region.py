"""The region in which several threads run a part that :class:`~relay_ext.workshare_loops.WorkshareLoops` made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules.cpu.work_sharing import PATIENCE, ROW


def parallel_region(tasks: Any, board: Any, sharing: str, call: Callable[[Any, Any], None], boards: Any = 1) -> None:
    """Write code that runs in `tasks` threads, or in this one alone.

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
    """
    with T.attr(0, "pragma_import_llvm", sharing):
        with T.serial(0, boards * (tasks + 1)) as row:
            T.buffer_store(board, tirx.const(0, "int64"), [row * ROW])
            of_thread = row % (tasks + 1) > 0
            patience = tirx.if_then_else(of_thread, tirx.const(PATIENCE, "int64"), tirx.const(0, "int64"))
            T.buffer_store(board, patience, [row * ROW + 1])
        with T.If(tasks == 1):
            with T.Then():
                call(0, 1)
            with T.Else(), T.attr(0, "pragma_parallel_launch_point", 1), T.parallel(0, tasks) as task:
                call(task, tasks)
