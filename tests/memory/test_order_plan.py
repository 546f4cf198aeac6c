"""What reordering the nodes within batches achieves, as counts."""

from __future__ import annotations

import numpy as np
import pytest

from edbatch_tvm.batching import schedule
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import Plan, plan_memory
from edbatch_tvm.memory import plan as plan_module
from edbatch_tvm.memory.layout import Layout
from edbatch_tvm.memory.layout_cache import layout_cache
from edbatch_tvm.memory.order_plan import Runs
from edbatch_tvm.memory.steps_table import CellLayout
from tests.memory.workloads import TAGGER, TREE, sentences, trees


def plans(graph: InstanceGraph, policy: str, *names: str) -> list[Plan]:
    batches, _ = schedule(graph, policy)
    return [plan_memory(batches, graph, name) for name in names]


@pytest.mark.parametrize("policy", ["depth", "lookahead"])
def test_chains_are_contiguous(rng: np.random.Generator, policy: str) -> None:
    """All states of the LSTMs, and one of the two operands of the one batch of tags."""
    by_batch, plan = plans(sentences(rng), policy, "batch", "order")
    assert plan.operands["indexed"] == (1 if policy == "lookahead" else plan.operands["indexed"])
    assert by_batch.operands["indexed"] > 100
    states = indexed = 0
    for step in plan.steps:
        cell = TAGGER[int(step[0])]
        if cell.name != "tag":
            layout = CellLayout(len(cell.outputs), len(cell.operands))
            states += len(cell.operands)
            indexed += sum(int(step[layout.stride(o)]) < 0 for o in range(len(cell.operands)))
    assert states > 300
    assert indexed == 0


@pytest.mark.parametrize("policy", ["depth", "lookahead"])
def test_trees_index_less(rng: np.random.Generator, policy: str) -> None:
    graph = trees(rng)
    by_batch, plan = plans(graph, policy, "batch", "order")
    assert plan.operands["indexed"] < by_batch.operands["indexed"]
    assert plan.bytes_indexed < 0.7 * by_batch.bytes_indexed
    # All four operands of the batch of internal nodes over leaves, and the one batch of readouts.
    layout = CellLayout(2, 4)
    first = next(step for step in plan.steps if step[0] == TREE.type_id("internal"))
    assert [first[layout.stride(o)] for o in range(4)] == [1, 1, 1, 1]
    if policy == "lookahead":
        assert plan.steps[-1][CellLayout(1, 1).stride(0)] == 1


@pytest.mark.parametrize("policy", ["depth", "lookahead"])
def test_a_pq_tree_indexes_less_on_trees(rng: np.random.Generator, policy: str) -> None:
    order, plan = plans(trees(rng), policy, "order", "pq")
    assert plan.operands["indexed"] < order.operands["indexed"]
    assert plan.bytes_indexed < order.bytes_indexed


def test_a_pq_tree_keeps_chains(rng: np.random.Generator) -> None:
    order, plan = plans(sentences(rng), "lookahead", "order", "pq")
    assert plan.operands == order.operands


def test_layouts_of_pq_are_kept(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = trees(rng, 8)
    (first,) = plans(graph, "lookahead", "pq")
    monkeypatch.setattr(plan_module, "pq_layouts", lambda *_: pytest.fail("planned again"))
    (again,) = plans(graph, "lookahead", "pq")
    assert np.array_equal(first.steps, again.steps)
    other = plan_module.plan_memory(schedule(graph, "lookahead")[0], graph, "order")
    assert other.name == "order"


def test_the_cache_forgets_what_was_used_longest_ago() -> None:
    def layout(nodes: int) -> Layout:
        return Layout(np.zeros(nodes, np.int32), np.zeros((1, 1), np.int32), (1,))

    cache = layout_cache(capacity=10)
    for name in (b"a", b"b"):
        cache.put(name, layout(5))
    assert cache.get(b"a") is not None
    cache.put(b"c", layout(5))
    assert [cache.get(name) is not None for name in (b"a", b"b", b"c")] == [True, False, True]
    cache.put(b"large", layout(100))
    assert cache.get(b"large") is not None


def test_the_schedule_stays_as_it_is(rng: np.random.Generator) -> None:
    graph = trees(rng, 8)
    batches, _ = schedule(graph, "lookahead")
    before = str(batches)
    plan = plan_memory(batches, graph, "order")
    assert str(batches) == before
    for batch, (_, nodes) in enumerate(batches):
        mine = plan.order[batches.batch_ptr[batch] : batches.batch_ptr[batch + 1]]
        assert sorted(mine) == nodes.tolist()


def test_runs_take_back_what_does_not_fit() -> None:
    runs = Runs(6)
    assert runs.link([1, 2, 3])
    assert not runs.link([4, 1, 2, 5])  # 5 cannot follow 2
    assert not runs.link([3, 0, 1])  # a circle
    assert not runs.link([4, 4])
    assert runs.in_order(list(range(6))) == [0, 1, 2, 3, 4, 5]
    assert runs.link([3, 0])
    assert runs.link([5, 1])
    assert runs.in_order(list(range(6))) == [4, 5, 1, 2, 3, 0]
