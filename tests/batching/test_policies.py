"""Every policy gives valid schedules, none below the bound, natively and in plain Python the same."""

from __future__ import annotations

import pytest
from hypothesis import given

from edbatch_tvm.batching import (
    ENCODINGS,
    FsmPolicy,
    SearchPolicy,
    check_schedule,
    get_policy,
    learn_policy,
    lower_bound,
    schedule,
)
from edbatch_tvm.batching.portfolio import QUICK
from edbatch_tvm.errors import PolicyError
from edbatch_tvm.graph import InstanceGraph, merge
from tests.batching.brute_force import fewest_batches
from tests.batching.graphs import Arrays, bilstm, lattice, minibatches, sentence, tree, typed_dags

POLICIES = (*QUICK, "search", "best", "auto")


@pytest.mark.parametrize("policy", POLICIES)
@given(graph=typed_dags())
def test_policies_are_valid(graph: InstanceGraph, policy: str) -> None:
    result, info = schedule(graph, policy, cache=False)
    check_schedule(graph, result)
    assert lower_bound(graph) <= len(result) == info.batches
    assert info.steps == len(result)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(graph=typed_dags())
def test_an_empty_table_is_lookahead(graph: InstanceGraph, encoding: str) -> None:
    policy = FsmPolicy(encoding, graph.type_names, {})
    result, info = schedule(graph, policy, cache=False)
    assert result == get_policy("lookahead")(graph)
    assert info.misses == info.steps == len(result)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(graph=typed_dags(max_nodes=25))
def test_learned_policies_are_valid(graph: InstanceGraph, encoding: str) -> None:
    policy = learn_policy([graph], encoding)
    result, info = schedule(graph, policy, cache=False)
    check_schedule(graph, result)
    assert len(result) >= lower_bound(graph)
    assert info.misses == 0


@given(graph=typed_dags())
def test_best_is_the_least(graph: InstanceGraph) -> None:
    counts = [len(get_policy(name)(graph)) for name in (*QUICK, "search")]
    assert len(get_policy("best")(graph)) == min(counts)


def two_sentences() -> InstanceGraph:
    """Sentences of 3 and 5 tokens."""
    return merge([bilstm(3), bilstm(5)])


@pytest.mark.parametrize(
    ("policy", "batches"),
    # 5 steps of each of 4 LSTM cells and the tags; by depth, the tags fall into one batch a depth they occur at.
    [("depth", 24), ("agenda", 21), ("ratio", 21), ("lookahead", 21)],
)
def test_counts_on_tagged_sentences(policy: str, batches: int) -> None:
    graph = two_sentences()
    assert lower_bound(graph) == 21
    assert len(get_policy(policy)(graph)) == batches


@pytest.mark.parametrize(("policy", "batches"), [("depth", 8), ("agenda", 8), ("ratio", 5), ("lookahead", 5)])
def test_counts_on_a_left_leaning_tree(policy: str, batches: int) -> None:
    """Readouts at every node of a comb of 4 leaves: together last, not one a level."""
    arrays = Arrays()
    nodes = [arrays.add(0) for _ in range(4)]
    top = nodes[0]
    for leaf in nodes[1:4]:
        top = arrays.add(1, top, leaf)
        nodes.append(top)
    for node in nodes:
        arrays.add(2, node)
    graph = arrays.graph()
    assert lower_bound(graph) == 5
    assert len(get_policy(policy)(graph)) == batches


@pytest.mark.parametrize("policy", [*POLICIES, FsmPolicy("sort", (), {})])
def test_a_graph_without_nodes(policy: str | FsmPolicy) -> None:
    graph = InstanceGraph.from_arrays([], [0], [])
    result, info = schedule(graph, policy)
    check_schedule(graph, result)
    assert len(result) == info.batches == info.lower_bound == lower_bound(graph) == 0
    assert list(result) == []
    assert str(info)


@pytest.mark.parametrize("make", [tree, sentence])
def test_lookahead_and_ratio_meet_the_bound_on_trees_and_sentences(make: object) -> None:
    for graph in minibatches(make, 0, 3):  # type: ignore[arg-type]
        bound = lower_bound(graph)
        assert len(get_policy("lookahead")(graph)) == len(get_policy("ratio")(graph)) == bound


def test_lookahead_on_lattices() -> None:
    graphs = minibatches(lattice, 0, 3)
    bound = sum(map(lower_bound, graphs))
    assert sum(len(get_policy("lookahead")(graph)) for graph in graphs) <= 1.40 * bound


@given(graph=typed_dags(max_nodes=12))
def test_a_search_of_any_width_is_optimal(graph: InstanceGraph) -> None:
    found = SearchPolicy(None).search(graph)
    assert found.optimal
    assert len(found.types) == fewest_batches(graph)


@pytest.mark.parametrize("width", [8, 64])
def test_search_is_anytime(width: int) -> None:
    (graph,) = minibatches(lattice, 0, 1, size=16)
    calls: list[tuple[int, int, int]] = []
    result = SearchPolicy(width, progress=lambda *call: calls.append(call))(graph)
    assert [width for width, _, _ in calls] == [8, 64][: len(calls)]
    assert calls[0][1] >= calls[-1][1] == len(result) >= calls[-1][2] == lower_bound(graph)
    assert len(result) <= len(get_policy("lookahead")(graph))
    short: list[tuple[int, int, int]] = []
    SearchPolicy(width, seconds=0, progress=lambda *call: short.append(call))(graph)
    assert short == calls[:1]


def test_a_beam_without_width() -> None:
    with pytest.raises(PolicyError, match="a beam of width 0; expected 1 or more"):
        SearchPolicy(0)
