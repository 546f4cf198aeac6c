"""Bounds hold: against brute force, against CP-SAT, against every schedule; and where they are exact."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given

from edbatch_tvm.batching import (
    SearchPolicy,
    check_schedule,
    exact_schedule,
    get_policy,
    lower_bound,
    optimum,
    order_bound,
)
from edbatch_tvm.batching.portfolio import QUICK
from edbatch_tvm.errors import PolicyError
from edbatch_tvm.graph import InstanceGraph, merge
from tests.batching.brute_force import fewest_batches
from tests.batching.corpora import in_minibatches, read_lattices
from tests.batching.graphs import Arrays, lattice, minibatches, random_dag, sentence, tree, typed_dags


def chains(*words: str) -> InstanceGraph:
    """One chain a word, a type a letter."""
    arrays = Arrays()
    for word in words:
        before: tuple[int, ...] = ()
        for letter in word:
            before = (arrays.add(ord(letter) - ord("a"), *before),)
    return arrays.graph()


@pytest.mark.parametrize(
    ("words", "simple", "ordered"),
    [
        (["ab", "ba"], 2, 3),
        (["aab", "baa"], 3, 4),
        (["abab", "baba"], 4, 5),
        (["aabb", "bbaa"], 4, 6),
        (["abc", "bca", "cab"], 3, 5),
        (["ab", "bc", "ca"], 3, 4),
        (["ab", "bc"], 3, 3),
    ],
)
def test_chains_that_conflict(words: list[str], simple: int, ordered: int) -> None:
    graph = chains(*words)
    assert lower_bound(graph) == simple
    assert order_bound(graph) == ordered == fewest_batches(graph)


@given(graph=typed_dags(max_nodes=12))
def test_bounds_hold(graph: InstanceGraph) -> None:
    assert lower_bound(graph) <= order_bound(graph) <= fewest_batches(graph)
    assert lower_bound(graph) <= order_bound(graph, vectors=1) <= order_bound(graph)


def test_bounds_of_nothing() -> None:
    graph = InstanceGraph.from_arrays([], [0], [])
    assert lower_bound(graph) == order_bound(graph) == 0


@pytest.mark.parametrize("make", [tree, sentence])
def test_bounds_of_trees_and_sentences(make: object) -> None:
    for graph in minibatches(make, 0, 2):  # type: ignore[arg-type]
        assert order_bound(graph) == lower_bound(graph)


def random_graphs(count: int) -> list[InstanceGraph]:
    """Random graphs of 30 to 60 nodes of 3 to 6 types."""
    graphs = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        nodes, types, edges = (int(rng.integers(*ends)) for ends in ((30, 61), (3, 7), (40, 120)))
        graphs.append(random_dag(seed, nodes, types, edges))
    return graphs


def check_against_the_optimum(graphs: list[InstanceGraph], exact_bounds: float) -> None:
    """The optimum is proven by CP-SAT alone. On a part of the graphs the order bound is exact."""
    pytest.importorskip("ortools", reason="OR-tools is not installed (extra `exact`)")
    equal = ordered = 0
    for graph in graphs:
        exact = exact_schedule(graph, bound=0)
        assert exact.proven
        check_schedule(graph, exact.schedule)
        least = len(exact.schedule)
        assert lower_bound(graph) <= order_bound(graph) <= least
        assert all(len(get_policy(name)(graph)) >= least for name in (*QUICK, "best", "auto"))
        search = SearchPolicy(64)(graph)
        check_schedule(graph, search)
        assert len(search) >= least
        equal += len(search) == least
        ordered += order_bound(graph) == least
        unlimited = SearchPolicy(None).search(graph)
        assert unlimited.optimal
        assert len(unlimited.types) == least
    assert equal >= 0.95 * len(graphs)
    assert ordered >= exact_bounds * len(graphs)


def test_against_the_optimum() -> None:
    check_against_the_optimum(random_graphs(20), 0.75)


@pytest.mark.slow
def test_against_the_optimum_of_200_graphs() -> None:
    check_against_the_optimum(random_graphs(200), 0.8)


@pytest.mark.slow
def test_against_the_optimum_of_small_lattices() -> None:
    lattices = [graph for graph in read_lattices("lattice/dev.txt") if graph.num_nodes < 60][:16]
    check_against_the_optimum([merge(lattices[i : i + 2]) for i in range(0, len(lattices), 2)], 0.5)


def test_the_order_bound_on_real_lattices() -> None:
    graphs = in_minibatches(read_lattices("lattice/dev.txt"))
    assert sum(map(order_bound, graphs)) > sum(map(lower_bound, graphs))
    assert all(order_bound(graph) <= len(get_policy("search")(graph)) for graph in graphs)


def test_optimum_that_is_not_found_in_time() -> None:
    pytest.importorskip("ortools", reason="OR-tools is not installed (extra `exact`)")
    (graph,) = minibatches(lattice, 0, 1)
    assert not exact_schedule(graph, seconds=0).proven
    with pytest.raises(PolicyError, match=r"between \d+ and \d+ batches after 0 s; expected a proven optimum"):
        optimum(graph, seconds=0)
    assert optimum(chains("ab", "ba")) == 3


def test_without_ortools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ortools.sat.python.cp_model", None)
    with pytest.raises(
        PolicyError, match=r"without OR-tools; expected it installed \(hint: pip install 'edbatch-tvm\[exact\]'"
    ):
        exact_schedule(chains("ab"))
