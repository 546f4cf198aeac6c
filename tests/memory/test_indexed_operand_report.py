"""The list of operands that stay indexed agrees with the plan's counts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edbatch_tvm.batching import schedule
from edbatch_tvm.graph import merge
from edbatch_tvm.memory import PLANS, indexed_operands, plan_memory
from tests.memory.workloads import sentences, trees
from tests.strategies import Minibatch, minibatches


@given(minibatches(), st.sampled_from(PLANS))
def test_counts(minibatch: Minibatch, name: str) -> None:
    graph = merge(minibatch.instances)
    plan = plan_memory(schedule(graph, "lookahead")[0], graph, name)
    found = indexed_operands(graph, plan)
    assert len(found) == plan.operands["indexed"]
    assert sum(one.bytes for one in found) == plan.bytes_indexed


def test_reasons(rng: np.random.Generator) -> None:
    graph = sentences(rng, 16)
    batches, _ = schedule(graph, "lookahead")
    (one,) = indexed_operands(graph, plan_memory(batches, graph, "order"))
    assert (one.cell, one.operand) == ("tag", "backward")
    assert one.reason.startswith("values of ")
    by_batch = indexed_operands(graph, plan_memory(batches, graph, "batch"))
    assert "one batch, in another order" in {one.reason for one in by_batch}
    graph = trees(rng, 16)
    plan = plan_memory(schedule(graph, "lookahead")[0], graph, "pq")
    text = str(indexed_operands(graph, plan)[0])
    assert text.startswith("batch ")
    assert "internal." in text
    assert "values of" in text
