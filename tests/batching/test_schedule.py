"""Schedules as objects and as text, their information, the checker and the cache."""

from __future__ import annotations

import gc
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edbatch_tvm.batching as batching
from edbatch_tvm.batching import (
    FrontierPolicy,
    Policy,
    Run,
    Schedule,
    check_schedule,
    clear_cache,
    get_policy,
    learn_policy,
    lower_bound,
    parse_schedule,
    policy_names,
    register_policy,
    save_policy,
    schedule,
)
from edbatch_tvm.batching.frontier import Frontier
from edbatch_tvm.batching.schedule_cache import ScheduleCache
from edbatch_tvm.errors import PolicyError
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import plan_memory
from tests.batching.graphs import bilstm, minibatches, tree, typed_dags
from tests.strategies import edited


def chain() -> InstanceGraph:
    """Nodes of types 7 and 9, each 9 after a 7."""
    return InstanceGraph.from_arrays([7, 9, 7, 9], [0, 0, 1, 1, 2], [0, 2])


@given(graph=typed_dags())
def test_text_parses_back(graph: InstanceGraph) -> None:
    result = get_policy("lookahead")(graph)
    assert parse_schedule(str(result)) == result


@given(graph=typed_dags(max_nodes=12), data=st.data())
def test_edited_text_parses_or_says_why(graph: InstanceGraph, data: st.DataObject) -> None:
    text = edited(data, str(get_policy("depth")(graph)))
    try:
        found = parse_schedule(text)
    except PolicyError:
        pass  # any other exception fails
    else:
        assert parse_schedule(str(found)) == found


def test_text_and_repr() -> None:
    result = get_policy("depth")(chain())
    assert str(result) == "schedule nodes=4 batches=2 types=7:7,9:9\n7: 0 2\n9: 1 3"
    assert repr(result) == "Schedule(batches=2, nodes=4, types=2)"
    named = Schedule(result.order, result.batch_ptr, result.batch_type, result.type_label, ("a b", "c,d:e%"))
    assert parse_schedule(str(named)) == named


def test_iteration_gives_the_users_type_ids() -> None:
    assert [(type_id, nodes.tolist()) for type_id, nodes in get_policy("depth")(chain())] == [(7, [0, 2]), (9, [1, 3])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "text that is no schedule; expected a first line 'schedule nodes=N"),
        ("schedule nodes=1 batches=1 types=x:a\n0: 0", "line 1: types=x:a; expected ID:NAME"),
        ("schedule nodes=1 batches=1 types=0:a\n0 0", "line 2: '0 0'; expected 'TYPE: NODE"),
        ("schedule nodes=1 batches=1 types=0:a\n1: 0", "line 2: type 1; expected one of 0"),
        ("schedule nodes=2 batches=1 types=0:a\n0: 0", "1 nodes in 1 batches; expected 2 nodes in 1 batches"),
        ("schedule nodes=1 batches=1 types=0:a\n0: 0-99999999999", "line 2: '0: 0-99999999999'; expected 1 nodes, the"),
        ("schedule nodes=9 batches=1 types=0:a\n0: 3-2", "line 2: '0: 3-2'; expected 9 nodes"),
        ("schedule nodes=999999999999 batches=1 types=0:a\n0: 0-999999999998", "line 2: .* expected 134217728 nodes"),
        ("schedule nodes=1 batches=1 types=0:a,0:b\n0: 0", "line 1: types=0:a,0:b; expected different type ids"),
        ("schedule nodes=1 batches=1 types=99999999999999999999:a\n0: 0", "line 1: types=9.*; expected ID:NAME"),
    ],
)
def test_broken_text(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        parse_schedule(text)


def changed(order: list[int], pointer: list[int], types: list[int]) -> Schedule:
    """A schedule of the chain."""
    arrays = np.array(order, np.int32), np.array(pointer, np.int32), np.array(types, np.int16)
    return Schedule.for_graph(chain(), *arrays)


@pytest.mark.parametrize(
    ("order", "pointer", "types", "message"),
    [
        ([0, 2, 1], [0, 2, 3], [0, 1], "node 3 runs 0 times; expected once"),
        ([0, 2, 1, 1], [0, 2, 4], [0, 1], "node 1 runs 2 times; expected once"),
        ([0, 2, 1, 4], [0, 2, 4], [0, 1], "the schedule runs node 4; expected nodes 0 to 3"),
        ([1, 3, 0, 2], [0, 2, 4], [1, 0], "node 1 runs in batch 0, its operand, node 0, in batch 1; expected operands"),
        ([0, 1, 2, 3], [0, 2, 4], [0, 1], "batch 0 of type 0 runs node 1 of type 1; expected one type per batch"),
        ([2, 0, 1, 3], [0, 2, 4], [0, 1], "node 0 is out of order; expected the nodes of a batch ascending"),
        ([0, 2, 1, 3], [0, 2, 2, 4], [0, 0, 1], "batch_ptr is not a list of offsets"),
    ],
)
def test_checker(order: list[int], pointer: list[int], types: list[int], message: str) -> None:
    check_schedule(chain(), changed([0, 2, 1, 3], [0, 2, 4], [0, 1]))
    with pytest.raises(PolicyError, match=message):
        check_schedule(chain(), changed(order, pointer, types))


def test_info_is_a_table() -> None:
    graph = bilstm(4)
    _, info = schedule(graph, "lookahead", cache=False)
    lines = str(info).splitlines()
    assert lines[0].split() == ["policy", "lookahead"]
    assert "batches         17  (1.000 x bound)" in lines
    assert "lower bound     17" in lines
    assert info.lower_bound == lower_bound(graph)


def test_cache_by_structure() -> None:
    clear_cache()
    first, info = schedule(bilstm(4), "agenda")
    again, cached = schedule(bilstm(4), "agenda")
    assert again is first
    assert (info.cached, cached.cached) == (False, True)
    assert "cached" in str(cached)
    assert schedule(bilstm(4), "depth")[1].cached is False
    assert schedule(bilstm(5), "agenda")[1].cached is False
    assert schedule(bilstm(4), "agenda", cache=False)[1].cached is False


def test_the_cache_keeps_no_graph() -> None:
    """A graph has the inputs of a minibatch; a schedule that somebody holds stays the one of its graph."""
    clear_cache()
    graph = bilstm(4)
    first = schedule(graph, "agenda")[0]
    text, gone = str(first), weakref.ref(graph)
    assert schedule(bilstm(4), "agenda")[0].graph is graph
    del first, graph
    assert gone() is None
    other = bilstm(4)
    again, info = schedule(other, "agenda")
    assert info.cached
    assert again.checked
    assert (str(again), again.graph) == (text, other)
    plan_memory(again)


def test_the_cache_counts_what_it_keeps() -> None:
    """Bytes, of many small schedules and of arrays that are parts of larger ones."""

    class Parts(Policy):
        name = "parts"

        def run(self, graph: InstanceGraph) -> Run:
            made = get_policy("depth")(graph)
            room = [np.empty(100_000, one.dtype) for one in (made.order, made.batch_ptr, made.batch_type)]
            parts = []
            for one, own in zip((made.order, made.batch_ptr, made.batch_type), room, strict=True):
                own[: len(one)] = one
                parts.append(own[: len(one)])
            return Run(Schedule.for_graph(graph, *parts), self.name)

    cache = ScheduleCache(1 << 16)
    policy = Parts()
    policy.run(bilstm(2))  # loads what it needs
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1000):
            graph = bilstm(2 + number % 7)
            cache.put(number, policy.run(graph))
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 1.5 * (1 << 16)
    finally:
        tracemalloc.stop()
    assert cache.get(999, graph) is not None
    assert cache.get(0, graph) is None


def test_cache_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    clear_cache()
    monkeypatch.setattr(batching.api, "_CACHE", ScheduleCache(3000))  # two of them
    for length in (4, 5, 6):
        schedule(bilstm(length), "agenda")
    assert schedule(bilstm(4), "agenda")[1].cached is False
    assert schedule(bilstm(6), "agenda")[1].cached is True
    clear_cache()


def test_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(PolicyError, match=r"unknown policy 'deepest'; expected one of agenda, auto, .* policy file"):
        schedule(chain(), "deepest")
    with pytest.raises(PolicyError, match="a policy of type int; expected a name"):
        schedule(chain(), 3)  # type: ignore[arg-type]


def test_fsm_needs_a_table() -> None:
    with pytest.raises(PolicyError, match="policy 'fsm' without a table; expected a learned policy"):
        schedule(chain(), "fsm")


def test_a_function_as_policy() -> None:
    def ours(graph: InstanceGraph) -> Schedule:
        return get_policy("depth")(graph)

    result, info = schedule(chain(), ours)
    assert (len(result), info.policy) == (2, "ours")
    with pytest.raises(PolicyError, match="policy '<lambda>' returned list; expected a Schedule"):
        schedule(chain(), lambda graph: [])  # type: ignore[arg-type, return-value]
    with pytest.raises(PolicyError, match="the schedule runs node 4"):
        schedule(chain(), lambda graph: get_policy("depth")(bilstm(2)))


def test_a_registered_policy() -> None:
    class Ours(Policy):
        name = "ours"

        def run(self, graph: InstanceGraph) -> Run:
            return Run(get_policy("depth")(graph), self.name)

    if "ours" not in policy_names():
        register_policy("ours", Ours)
    assert schedule(chain(), "ours")[1].policy == "ours"
    with pytest.raises(PolicyError, match="a policy called 'ours' is registered already"):
        register_policy("ours", Ours)


def test_a_rule_of_ones_own() -> None:
    class Largest(FrontierPolicy):
        name = "largest"

        def choose(self, frontier: Frontier) -> int:
            return max(range(frontier.num_types), key=lambda type_id: frontier.size[type_id])

    result, info = schedule(chain(), Largest())
    check_schedule(chain(), result)
    assert (info.policy, len(result)) == ("largest", 2)


def test_a_policy_file(tmp_path: object) -> None:
    graph = minibatches(tree, 0, 1, size=4)[0]
    path = f"{tmp_path}/tree.json"
    save_policy(learn_policy([graph]), path)
    result, info = schedule(graph, path)
    assert len(result) == info.lower_bound
    assert info.policy == "fsm-sort"
    assert info.states > 0
