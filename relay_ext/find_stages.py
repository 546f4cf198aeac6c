"""Stage detection: cut a fused cell where a contraction consumes the result of another (design, section 6).

A cell whose blocks are element-wise code, contractions of an instance's vectors with weights, and sums over variadic
rows becomes a list of :class:`schedules.stage.Stage`. LSTM and TreeLSTM cells are one stage; a GRU, whose second
product reads ``r * h``, is two. A cell outside this form is :class:`~relay_ext.block_reader.NotReadable` with the
reason, and takes the general path.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from relay_ext.expressions import size_of
from relay_ext.stage_inputs import StageInputs
from relay_ext.trace_stage import Group, StageTracer
from schedules import stage as ir


def find_stages(function: tirx.PrimFunc, variadic: tuple[bool, ...], is_operand: tuple[bool, ...]) -> list[ir.Stage]:
    """The stages of a fused cell, in the order they run.

    Parameters
    ----------
    function : PrimFunc
        A cell as FuseCells leaves it.
    variadic, is_operand : tuple of bool
        For each per-instance parameter.

    Raises
    ------
    NotReadable
        If the cell is not made of stages; the message says why.
    """
    inputs = StageInputs(function, variadic, is_operand)
    groups: dict[tuple[int, int], Group] = {}

    def place(buffer: Any, slot: int, scratch: str) -> None:
        key = (inputs.level(buffer), size_of(buffer))
        groups.setdefault(key, Group(*key)).targets.append((buffer, slot, scratch))

    for slot, buffer in enumerate(inputs.outputs):
        place(buffer, slot, "")
    for buffer, name in inputs.scratch.items():
        place(buffer, -1, name)
    ordered = [groups[key] for key in sorted(groups)]
    return [StageTracer(inputs, group, f"{inputs.cell}_stage{n}").stage() for n, group in enumerate(ordered)]
