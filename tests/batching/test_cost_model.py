"""Cost tables, and schedules by time."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edbatch_tvm.batching import (
    CostTable,
    SearchPolicy,
    best_policy,
    calibrate,
    check_schedule,
    get_policy,
    select_policy,
    weigh_batches_against_time,
)
from edbatch_tvm.batching.portfolio import QUICK
from edbatch_tvm.errors import PolicyError
from edbatch_tvm.graph import InstanceGraph
from tests.batching.graphs import lattice, minibatches, typed_dags


def flat(graph: InstanceGraph, seconds: float = 1e-6) -> CostTable:
    """A table by which every batch takes the same time."""
    return CostTable({name: {1: seconds} for name in graph.type_names})


def test_interpolation() -> None:
    table = CostTable({"cell": {10: 2e-6, 20: 4e-6, 40: 5e-6}})
    sizes = {1: 2, 10: 2, 15: 3, 20: 4, 30: 4.5, 40: 5, 60: 6}
    assert {n: round(table.seconds("cell", n) * 1e6, 6) for n in sizes} == sizes


def test_save_and_load(tmp_path: Path) -> None:
    table = CostTable({"leaf": {1: 1e-6, 64: 5e-6}, "inner": {1: 2e-6}})
    table.save(tmp_path / "costs.json")
    again = CostTable.load(tmp_path / "costs.json")
    assert again.as_dict() == table.as_dict()
    assert again.digest == table.digest


def test_bad_tables(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"costs of 'leaf' for sizes \[0\]; expected one or more sizes of 1 to"):
        CostTable({"leaf": {0: 1.0}})
    with pytest.raises(PolicyError, match=r"costs of 'leaf': \[-1.0\] seconds; expected positive numbers"):
        CostTable({"leaf": {1: -1.0}})
    with pytest.raises(PolicyError, match="no costs of 'inner'; expected one of leaf"):
        CostTable({"leaf": {1: 1.0}}).seconds("inner", 3)
    path = tmp_path / "costs.json"
    with pytest.raises(PolicyError, match="cannot be read"):
        CostTable.load(path)
    for text in ("{", "[]", '{"format": "other", "version": 1}', '{"format": "edbatch-costs", "version": 1}'):
        path.write_text(text)
        with pytest.raises(PolicyError, match="is no cost table"):
            CostTable.load(path)


def test_calibrate() -> None:
    calls: list[tuple[str, int]] = []
    noise = itertools.cycle([9.0, 1.0, 1.0, 5.0])

    def measure(name: str, size: int) -> float:
        calls.append((name, size))
        return size * next(noise)

    table = calibrate(measure, ["leaf"], [1, 8], repeat=3)
    assert calls == [("leaf", 1)] * 4 + [("leaf", 8)] * 4
    assert table.as_dict() == {"leaf": {1: 1.0, 8: 8.0}}


@given(graph=typed_dags())
def test_equal_times_are_numbers_of_batches(graph: InstanceGraph) -> None:
    schedule = SearchPolicy(4, costs=flat(graph))(graph)
    assert len(schedule) == len(SearchPolicy(4)(graph))
    assert np.isclose(flat(graph).of_schedule(schedule), 1e-6 * len(schedule))


@given(graph=typed_dags(max_nodes=10), data=st.data())
def test_no_schedule_is_faster(graph: InstanceGraph, data: st.DataObject) -> None:
    """Against all words over the types, executed whole frontier by whole frontier."""
    times = st.integers(1, 9)
    costs = CostTable({name: {n: data.draw(times) * 1e-6 for n in (1, 2, 5)} for name in graph.type_names})
    schedule = SearchPolicy(None, costs=costs)(graph)
    check_schedule(graph, schedule)
    assert costs.of_schedule(schedule) <= least_seconds(graph, costs) + 1e-8


def least_seconds(graph: InstanceGraph, costs: CostTable) -> float:
    """Least time by dynamic programming over the sets of nodes that ran."""
    waits = [
        set(graph.operand_node[graph.operand_ptr[v] : graph.operand_ptr[v + 1]].tolist())
        for v in range(graph.num_nodes)
    ]
    best = {frozenset[int](): 0.0}
    done = float("inf")
    while best:
        following: dict[frozenset[int], float] = {}
        for ran, spent in best.items():
            if len(ran) == graph.num_nodes:
                done = min(done, spent)
            ready = [v for v in range(graph.num_nodes) if v not in ran and waits[v] <= ran]
            for t, name in enumerate(graph.type_names):
                if batch := {v for v in ready if graph.node_type[v] == t}:
                    cost = spent + costs.seconds(name, len(batch))
                    following[ran | batch] = min(following.get(ran | batch, cost), cost)
        best = following
    return done


def test_objectives() -> None:
    """A table by which batches of one type are dear: fewer of these are worth more batches of the others."""
    graphs = minibatches(lattice, 0, 2, size=16)
    names = graphs[0].type_names
    costs = CostTable({name: {1: 1e-4 if t == 3 else 1e-6} for t, name in enumerate(names)})
    for graph in graphs:
        fastest = best_policy(16, costs=costs)(graph)
        assert all(costs.of_schedule(fastest) <= costs.of_schedule(get_policy(name)(graph)) for name in QUICK)
    result = weigh_batches_against_time(graphs, costs, width=16)
    assert result.fastest_seconds < result.fewest_seconds
    assert result.fastest_batches >= result.fewest_batches
    assert result.differing >= 1
    assert "least time" in str(result)
    chosen = select_policy(graphs, learn=False, costs=costs)
    seconds = {name: sum(costs.of_schedule(get_policy(name)(graph)) for graph in graphs) for name in QUICK}
    assert seconds[chosen.name] == min(seconds.values())


def test_costs_tell_policies_apart() -> None:
    graph = minibatches(lattice, 0, 1, size=1)[0]
    identities = {SearchPolicy(8, costs=costs).identity for costs in (None, flat(graph), flat(graph, 2e-6))}
    assert len(identities) == 3
    assert "costs=CostTable(" in repr(SearchPolicy(8, costs=flat(graph)))
