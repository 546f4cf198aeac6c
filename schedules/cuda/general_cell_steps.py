"""A general cell for the threads of a block: its TIR, for one instance, as steps that the threads can share.

Each block of the cell becomes one loop over all its spatial axes, whose iterations do not depend on each other; in an
iteration a reduction runs to its end. The threads share the iterations; a barrier stands between two steps. What is not
of this form (TIR that a user wrote with other loops) is one step of one thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import IRModule

from edbatch_tvm.tvm_compat import s_tir, structural_map, structural_walk, tirx

_SPREAD = "edbatch.spread"
_DATA, _REDUCE = tirx.IterVar.DataPar, tirx.IterVar.CommReduce


@dataclass(frozen=True)
class Step:
    """Statements between two barriers: of `extent` independent iterations in `variable`, or of one thread.

    ``variable`` is None for a step of one thread.
    """

    body: Any
    variable: Any = None
    extent: Any = None


@dataclass(frozen=True)
class Steps:
    """A cell as steps, and the buffers that its values lie in between."""

    steps: tuple[Step, ...]
    buffers: tuple[Any, ...]


def spread_cell(function: tirx.PrimFunc) -> Steps:
    """The steps of a cell as FuseCells leaves it."""
    schedule = s_tir.Schedule(IRModule({"main": function}))
    root = schedule.get_sblock("root", func_name="main")
    for block in schedule.get_child_blocks(root):
        _spread(schedule, block)
    passes = s_tir.transform
    module = schedule.mod
    for lower in (
        passes.LowerInitBlock,
        passes.PlanAndUpdateBufferAllocationLocation,
        passes.ConvertBlocksToOpaque,
        passes.LowerMatchBuffer,
        passes.LowerOpaqueBlock,
    ):
        module = lower()(module)
    steps: list[Step] = []
    buffers: list[Any] = []
    for statement in _statements(module["main"].body):
        if isinstance(statement, tirx.AllocBuffer):
            buffers.append(statement.buffer)
            continue
        inner = _allocated(statement)
        if isinstance(statement, tirx.For) and _SPREAD in statement.annotations and not inner:
            steps.append(Step(statement.body, statement.loop_var, statement.extent))
            continue
        # Values inside an iteration would need a place for each thread.
        buffers.extend(inner)
        steps.append(Step(_without_allocations(statement)))
    return Steps(tuple(steps), tuple(buffers))


def _statements(body: Any) -> list[Any]:
    if isinstance(body, tirx.SeqStmt):
        return [one for part in body.seq for one in _statements(part)]
    return [body]


def _allocated(statement: Any) -> list[Any]:
    found: list[Any] = []
    structural_walk(statement, (tirx.AllocBuffer, lambda node: found.append(node.buffer)))
    return found


def _without_allocations(statement: Any) -> Any:
    nothing = tirx.Evaluate(tirx.const(0, "int32"))
    return structural_map(statement, (tirx.AllocBuffer, lambda _: nothing))


def _spread(schedule: Any, block: Any) -> None:
    loops = list(schedule.get_loops(block))
    kinds = [axis.iter_type for axis in schedule.get(block).iter_vars]
    if len(kinds) != len(loops) or not set(kinds) <= {_DATA, _REDUCE}:
        return
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == _DATA]
    reduce = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == _REDUCE]
    if reduce:
        schedule.reorder(*spatial, *reduce)
    fused = schedule.fuse(*spatial) if spatial else None
    if reduce:
        # Over no rows too, a reduction has to give its identity.
        schedule.decompose_reduction(block, reduce[0])
    if fused is not None:
        schedule.annotate(fused, _SPREAD, 1)
