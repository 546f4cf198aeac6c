"""The region in which several threads run a part that :class:`~relay_ext.workshare_loops.WorkshareLoops` made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules.cpu.work_sharing import PATIENCE, ROW


def parallel_region(tasks: Any, board: Any, sharing: str, call: Callable[[Any, Any], Any]) -> None:
    """Write code that calls a part in `tasks` threads, or in this one alone.

    Parameters
    ----------
    tasks : expression
    board : buffer
        Where threads claim work; see :mod:`schedules.cpu.work_sharing`.
    sharing : str
        LLVM IR of the functions that parts call.
    call : callable
        The call of the part, by the number of the thread and how many there are.
    """
    with T.attr(0, "pragma_import_llvm", sharing):
        with T.serial(0, tasks + 1) as row:
            T.buffer_store(board, tirx.const(0, "int64"), [row * ROW])
            patience = tirx.if_then_else(row > 0, tirx.const(PATIENCE, "int64"), tirx.const(0, "int64"))
            T.buffer_store(board, patience, [row * ROW + 1])
        with T.If(tasks == 1):
            with T.Then():
                T.evaluate(call(0, 1))
            with T.Else(), T.attr(0, "pragma_parallel_launch_point", 1), T.parallel(0, tasks) as task:
                T.evaluate(call(task, tasks))
