"""The unfused form: operands that are not contiguous are copied before the kernel runs, which then reads no index.

This is what DyNet and the published ED-Batch do. A copy goes to rows behind the values of the same arena, which every
batch uses anew.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.memory.plan import Plan
from edbatch_tvm.memory.steps_table import CONTIGUOUS, COUNT, INDEXED, POINTER, TYPE, CellLayout


@dataclass(frozen=True, kw_only=True, eq=False)
class UnfusedPlan(Plan):
    """A plan whose kernels read contiguous operands only, and the copies that make them so.

    ``operand_counts`` are those of the plan without copies; ``bytes_indexed`` is 0.

    Attributes
    ----------
    copies : int32 array of shape [copies, 5]
        Arena, base, stride, number of rows, first row of the copy; base and stride as in the steps table. In the order
        of batches.
    copy_ptr : int32 array of shape [batches + 1]
        Where the copies of each batch begin.
    bytes_gathered : int
        Bytes that are copied.
    """

    copies: np.ndarray
    copy_ptr: np.ndarray
    bytes_gathered: int


def unfuse(plan: Plan, signature: Signature) -> UnfusedPlan:
    """`plan` with a copy of every operand that is not contiguous.

    Parameters
    ----------
    plan : Plan
    signature : Signature
        Of the graph that `plan` was made for.
    """
    steps = plan.steps.copy()
    used = np.zeros((len(signature.value_specs), len(steps)), np.int64)
    pieces: list[np.ndarray] = []
    copied = 0
    for type_id, cell in enumerate(signature):
        batches = np.flatnonzero(steps[:, TYPE] == type_id)
        layout = CellLayout(len(cell.outputs), len(cell.operands))
        for number, operand in enumerate(cell.operands):
            base, stride = steps[batches, layout.base(number)], steps[batches, layout.stride(number)]
            rows, first = steps[batches, COUNT], np.zeros(len(batches), np.int32)
            if operand.variadic:
                pointer = steps[batches, POINTER]
                first = plan.index[pointer]
                rows = plan.index[pointer + rows] - first
            moved = (stride != CONTIGUOUS) & (rows > 0)
            arena = signature.arena(operand.spec)
            here, rows, first = batches[moved], rows[moved], first[moved]
            target = plan.arena_rows[arena] + used[arena, here]
            used[arena, here] += rows
            source = base[moved] + np.where(stride[moved] == INDEXED, first, 0)
            pieces.append(np.column_stack([here, np.full(len(here), arena), source, stride[moved], rows, target]))
            copied += int(rows.sum()) * operand.spec.size * np.dtype(operand.spec.dtype).itemsize
            steps[here, layout.base(number)] = target - first
            steps[here, layout.stride(number)] = CONTIGUOUS
    table = np.concatenate(pieces) if pieces else np.empty((0, 6), np.int64)
    table = table[np.argsort(table[:, 0], kind="stable")]
    changed = {
        "steps": steps,
        "arena_rows": tuple(
            rows + int(extra) for rows, extra in zip(plan.arena_rows, used.max(1, initial=0), strict=True)
        ),
        "bytes_indexed": 0,
        "copies": table[:, 1:].astype(np.int32),
        "copy_ptr": np.searchsorted(table[:, 0], np.arange(len(steps) + 1)).astype(np.int32),
        "bytes_gathered": copied,
    }
    return UnfusedPlan(**{field.name: getattr(plan, field.name) for field in fields(Plan)} | changed)
