"""Memory plans against a slow reading of the steps table, node by node."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edbatch_tvm.batching import parse_schedule, schedule
from edbatch_tvm.errors import PlanError
from edbatch_tvm.graph import (
    FIRST_EXTERNAL,
    ZERO,
    Builder,
    CellSignature,
    InstanceGraph,
    Operand,
    Signature,
    ValueSpec,
    merge,
)
from edbatch_tvm.memory import PLANS, Plan, plan_memory
from edbatch_tvm.memory.steps_table import COUNT, FIRST, POINTER, TYPE, CellLayout
from tests.strategies import Minibatch, minibatches


def rows_read(plan: Plan, step: np.ndarray, layout: CellLayout, operand: int, variadic: bool) -> list[list[int]]:
    """Rows that each node of a batch reads for one operand, as a kernel finds them."""
    base, stride = int(step[layout.base(operand)]), int(step[layout.stride(operand)])

    def row(position: int) -> int:
        return int(plan.index[base + position]) if stride < 0 else base + position * stride

    if not variadic:
        return [[row(i)] for i in range(step[COUNT])]
    offsets = plan.index[step[POINTER] : step[POINTER] + step[COUNT] + 1].tolist()
    return [[row(p) for p in range(low, high)] for low, high in itertools.pairwise(offsets)]


def expected_row(graph: InstanceGraph, plan: Plan, value: int) -> int:
    if value == ZERO:
        return 0
    if value <= FIRST_EXTERNAL:
        return 1 + int(graph.external_row[FIRST_EXTERNAL - value])
    return int(plan.value_row[value])


@given(minibatches(), st.sampled_from(PLANS), st.sampled_from(["depth", "lookahead", "agenda"]))
def test_kernels_find_every_operand(minibatch: Minibatch, name: str, policy: str) -> None:
    graph = merge(minibatch.instances)
    batches, _ = schedule(graph, policy)
    plan = plan_memory(batches, graph, name)
    signature = graph.signature
    assert signature is not None
    seen = [0] * len(signature)
    counts = {"contiguous": 0, "broadcast": 0, "indexed": 0}
    bytes_indexed = 0
    for step, (type_id, unordered), low, high in zip(
        plan.steps, batches, batches.batch_ptr[:-1], batches.batch_ptr[1:], strict=True
    ):
        nodes = plan.order[low:high]
        assert sorted(nodes) == sorted(unordered)
        cell = signature[type_id]
        layout = CellLayout(len(cell.outputs), len(cell.operands))
        assert (step[TYPE], step[COUNT], step[FIRST]) == (type_id, len(nodes), seen[type_id])
        if cell.attributes:
            order = plan.attribute_order[type_id][seen[type_id] : seen[type_id] + len(nodes)]
            assert graph.nodes_of(type_id)[order].tolist() == nodes.tolist()
        seen[type_id] += len(nodes)
        for slot in range(len(cell.outputs)):
            first = step[layout.output(slot)]
            assert [plan.value_row[node * graph.stride + slot] for node in nodes] == list(
                range(first, first + len(nodes))
            )
        repeat = (np.diff(graph.operand_ptr)[nodes] - cell.fixed_arity) // max(1, cell.variadic_count)
        start = graph.operand_ptr[nodes].copy()
        for number, operand in enumerate(cell.operands):
            width = repeat if operand.variadic else np.ones_like(repeat)
            wanted = [
                [expected_row(graph, plan, int(v)) for v in graph.operand_value[s : s + w]]
                for s, w in zip(start, width, strict=True)
            ]
            assert rows_read(plan, step, layout, number, operand.variadic) == wanted
            start += width
            flat = [row for rows in wanted for row in rows]
            steps = set(np.diff(flat).tolist())
            kind = "contiguous" if steps <= {1} else "broadcast" if steps == {0} else "indexed"
            counts[kind] += 1
            bytes_indexed += len(flat) * operand.spec.size * 4 if kind == "indexed" else 0
    assert (plan.operands, plan.bytes_indexed) == (counts, bytes_indexed)


@given(minibatches(), st.sampled_from(PLANS))
def test_no_two_values_share_a_row(minibatch: Minibatch, name: str) -> None:
    graph = merge(minibatch.instances)
    plan = plan_memory(schedule(graph, "lookahead")[0], graph, name)
    signature = graph.signature
    assert signature is not None
    taken: list[set[int]] = [
        {0, *(1 + graph.external_row[graph.external_spec == arena]).tolist()} for arena in range(len(plan.arena_rows))
    ]
    for node, type_id in enumerate(graph.node_type):
        for slot, spec in enumerate(signature[int(type_id)].outputs):
            arena, row = signature.arena(spec), int(plan.value_row[node * graph.stride + slot])
            assert row not in taken[arena]
            assert row < plan.arena_rows[arena]
            taken[arena].add(row)


@given(minibatches(), st.sampled_from(["depth", "lookahead"]))
def test_better_plans_are_no_worse(minibatch: Minibatch, policy: str) -> None:
    graph = merge(minibatch.instances)
    batches, _ = schedule(graph, policy)
    plans = [plan_memory(batches, graph, name) for name in PLANS]
    for plan, better in itertools.pairwise(plans):
        assert better.operands["indexed"] <= plan.operands["indexed"]
        assert better.bytes_indexed <= plan.bytes_indexed


def test_a_chain_of_one_instance_is_contiguous() -> None:
    spec = ValueSpec((4,))
    signature = Signature([CellSignature("step", (Operand("h", spec),), (), (spec,))])
    b = Builder(signature)
    h = b.zero
    for _ in range(5):
        h = b.call("step", h)
    graph = b.finish(h)
    plan = plan_memory(schedule(graph, "depth")[0], graph)
    assert plan.operands == {"contiguous": 5, "broadcast": 0, "indexed": 0}
    both = merge([graph, graph])
    plan = plan_memory(schedule(both, "depth")[0], both)
    assert plan.operands == {"contiguous": 4, "broadcast": 1, "indexed": 0}  # both begin with the one zero row


def test_bare_graphs_and_the_graph_of_the_schedule() -> None:
    bare = InstanceGraph.from_arrays([7, 7, 900, 7, 900, 900], [0, 0, 0, 2, 2, 3, 3], [0, 1, 3])
    batches, _ = schedule(bare, "depth")
    plan = plan_memory(batches)
    assert sum(plan.operands.values()) == 2  # 900 takes 2, 1 and 0 values: one variadic operand in each of its batches
    assert plan.operands == plan_memory(batches, bare).operands


def test_messages() -> None:
    bare = InstanceGraph.from_arrays([0], [0, 0], [])
    batches, _ = schedule(bare, "depth")
    with pytest.raises(PlanError, match=r"unknown plan 'best'; expected one of auto, batch, order, pq"):
        plan_memory(batches, plan="best")
    with pytest.raises(PlanError, match=r"a graph of 2 nodes; expected the 1 nodes of the schedule"):
        plan_memory(batches, merge([bare, bare]))
    with pytest.raises(PlanError, match="a schedule without its graph"):
        plan_memory(parse_schedule(str(batches)))
