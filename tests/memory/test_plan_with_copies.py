"""Copies of operands against a plain simulation of the steps table."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import edbatch_tvm as eb
from edbatch_tvm.graph import InstanceGraph, Signature, merge
from edbatch_tvm.memory.plan import Plan
from edbatch_tvm.memory.plan_with_copies import unfuse
from edbatch_tvm.memory.steps_table import CONTIGUOUS, COUNT, INDEXED, POINTER, CellLayout
from tests.strategies import Minibatch, minibatches


def rows_read(plan: Plan, signature: Signature, step: int, slot: int) -> list[int]:
    """Rows that an operand of a batch reads, by the definition of the steps table."""
    row = plan.steps[step].tolist()
    cell = signature[row[0]]
    layout = CellLayout(len(cell.outputs), len(cell.operands))
    base, stride = row[layout.base(slot)], row[layout.stride(slot)]
    positions = range(row[COUNT])
    if cell.operands[slot].variadic:
        positions = range(plan.index[row[POINTER]], plan.index[row[POINTER] + row[COUNT]])
    return [int(plan.index[base + p]) if stride == INDEXED else base + p * stride for p in positions]


@given(minibatches(), st.sampled_from(["agenda", "lookahead"]))
def test_kernels_read_the_same_rows_or_copies_of_them(minibatch: Minibatch, policy: str) -> None:
    signature = minibatch.signature
    graph: InstanceGraph = merge(minibatch.instances)
    schedule, _ = eb.schedule(graph, policy)
    plan = eb.plan_memory(schedule, graph)
    gathered = unfuse(plan, signature)
    bytes_moved = 0
    for step in range(len(plan.steps)):
        cell = signature[int(plan.steps[step, 0])]
        content: dict[tuple[int, int], Any] = {}  # row of a copy -> the row it was copied from
        for number in range(gathered.copy_ptr[step], gathered.copy_ptr[step + 1]):
            arena, base, stride, count, to = gathered.copies[number].tolist()
            for i in range(count):
                assert plan.arena_rows[arena] <= to + i < gathered.arena_rows[arena]
                assert (arena, to + i) not in content
                content[arena, to + i] = int(plan.index[base + i]) if stride == INDEXED else base + i * stride
            spec = signature.value_specs[arena]
            bytes_moved += count * spec.size * 4
        layout = CellLayout(len(cell.outputs), len(cell.operands))
        for slot, operand in enumerate(cell.operands):
            arena = signature.arena(operand.spec)
            before, after = rows_read(plan, signature, step, slot), rows_read(gathered, signature, step, slot)
            assert [content.get((arena, row), row) for row in after] == before
            assert gathered.steps[step, layout.stride(slot)] == CONTIGUOUS or not before
    assert gathered.bytes_gathered == bytes_moved
    assert gathered.bytes_indexed == 0
    assert gathered.operands == plan.operands
