"""Tiles as they stand in a database: the trace of a schedule, and the smallest batch the tile is used for."""

from __future__ import annotations

from tvm import IRModule

from edbatch_tvm.errors import DatabaseError
from edbatch_tvm.tuning.kernels.database import CONFIG, config_of
from edbatch_tvm.tvm_compat import Trace, s_tir
from schedules.cpu.general_cells import lower_blocks
from schedules.cpu.instance_tiles import TunedTile

SIZES = (16, 4, 1)
"""Tile sizes, the largest first."""


def tile_of(subject: IRModule, trace: Trace, size: int, least: int = 1) -> TunedTile:
    """The tile that `trace` makes of the workload `subject`."""
    schedule = s_tir.Schedule(subject)
    trace.apply_to_schedule(schedule, remove_postproc=False)
    return TunedTile(size, least, lower_blocks(schedule.mod))


def with_least(module: IRModule, trace: Trace, least: int) -> Trace:
    """`trace`, with the smallest batch that its tile is used for as an annotation."""
    schedule = s_tir.Schedule(module)
    trace.apply_to_schedule(schedule, remove_postproc=False)
    schedule.annotate(schedule.get_sblock("root", func_name="main"), CONFIG, str(least))
    return schedule.trace


def read_least(trace: Trace) -> int:
    """What :func:`with_least` wrote.

    Raises
    ------
    DatabaseError
        If it is something else.
    """
    text = config_of(trace)
    if not text.isdigit():
        raise DatabaseError(f"a tile used from batch size {text!r} on", "a number")
    return int(text)
