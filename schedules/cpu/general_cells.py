"""Loop order for a cell outside the stage form: correct for everything, with inner loops that LLVM vectorises."""

from __future__ import annotations

from typing import Any

from tvm import IRModule

from edbatch_tvm.tvm_compat import LoopRV, SBlockRV, Schedule, s_tir, tirx

LANES = "edbatch.lanes"
"""Annotation of an innermost loop whose turns LLVM can make lanes of vectors."""

_REDUCE = tirx.IterVar.CommReduce


def schedule_general(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Schedule the blocks of one instance and lower them to plain loops.

    Reductions are initialised apart, before their loop: a sum over no variadic rows has to give the identity. Then the
    last spatial axis of every block is moved innermost where its extent is known. LLVM vectorises that loop, whatever
    the extent; marked as vectorised here, it would read element by element what a division or a remainder has moved
    (reshapes are full of them), and cells took 2 to 16 times as long.
    """
    schedule = s_tir.Schedule(IRModule({"main": function}))
    for block in leaf_blocks(schedule):
        schedule_block(schedule, block)
    return lower_blocks(schedule.mod)


def lower_blocks(module: IRModule) -> tirx.PrimFunc:
    """The function ``main`` of `module`, scheduled blocks, as plain loops."""
    passes = s_tir.transform
    for lower in (
        passes.LowerInitBlock,
        passes.PlanAndUpdateBufferAllocationLocation,
        passes.ConvertBlocksToOpaque,
        passes.CompactBufferAllocation,
        passes.LowerMatchBuffer,
        passes.LowerOpaqueBlock,
    ):
        module = lower()(module)
    return module["main"]


def leaf_blocks(schedule: Schedule) -> list[SBlockRV]:
    """The blocks of ``main``."""
    root = schedule.get_sblock("root", func_name="main")
    return list(schedule.get_child_blocks(root))


def schedule_block(schedule: Schedule, block: SBlockRV) -> None:
    """Initialise a reduction apart; move the last spatial axis innermost."""
    statement = schedule.get(block)
    loops = list(schedule.get_loops(block))
    kinds = [axis.iter_type for axis in statement.iter_vars]
    if len(kinds) != len(loops):
        return
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == tirx.IterVar.DataPar]
    reduce = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == _REDUCE]
    if len(spatial) + len(reduce) != len(loops):
        return
    inner: LoopRV | None = spatial[-1] if spatial and _extent(schedule, spatial[-1]) is not None else None
    if reduce:
        outer = spatial[:-1] if inner is not None else spatial
        schedule.reorder(*outer, *reduce, *([inner] if inner is not None else []))
        schedule.decompose_reduction(block, reduce[0])
    if inner is not None:
        schedule.annotate(inner, LANES, 1)


def _extent(schedule: Schedule, loop: LoopRV) -> int | None:
    extent: Any = schedule.get(loop).extent
    return int(extent) if isinstance(extent, tirx.IntImm) else None
