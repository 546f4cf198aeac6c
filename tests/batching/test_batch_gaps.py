"""Why the batches of a type are apart, against an oracle that looks at ancestors of each node by networkx."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edbatch_tvm.batching import Schedule, batch_gaps, lower_bound, schedule
from edbatch_tvm.batching.batch_gaps import Gap, find_batch_gaps
from edbatch_tvm.graph import InstanceGraph
from tests.batching.graphs import typed_dags


def oracle(graph: InstanceGraph, batches: Schedule) -> list[tuple[int, int, int, int, int]]:
    """Batch, previous, dependent, waiting and ready of every gap."""
    view = nx.DiGraph(graph.to_networkx())
    batch_of = {int(node): batch for batch, (_, nodes) in enumerate(batches) for node in nodes}
    latest: dict[int, int] = {}
    found = []
    for batch, (label, nodes) in enumerate(batches):
        if label in latest:
            previous = latest[label]
            kinds = [0, 0, 0]
            for node in nodes.tolist():
                if any(batch_of[one] == previous for one in nx.ancestors(view, node)):
                    kinds[0] += 1
                elif any(batch_of[one] > previous for one in view.predecessors(node)):
                    kinds[1] += 1
                else:
                    kinds[2] += 1
            found.append((batch, previous, *kinds))
        latest[label] = batch
    return sorted(found)


@given(typed_dags(), st.sampled_from(["depth", "agenda", "ratio", "lookahead"]), st.sampled_from([0, 1, 8]))
def test_gaps_on_random_graphs(graph: InstanceGraph, policy: str, few: int) -> None:
    batches, _ = schedule(graph, policy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_gaps, "_FEW", few)  # larger batches are looked at as arrays
        found = find_batch_gaps(graph, batches)
    gaps = [(g.batch, g.previous, g.dependent, g.waiting, g.ready) for one in found for g in one.gaps]
    assert sorted(gaps) == oracle(graph, batches)
    assert sum(one.nodes for one in found) == graph.num_nodes
    assert sum(one.batches for one in found) == len(batches)
    assert sum(one.longest_path for one in found) == lower_bound(graph)
    assert all(one.above_path >= 0 for one in found)
    if policy != "depth":
        assert not any(one.total("ready") for one in found)  # these run whole frontiers


@pytest.fixture
def fork() -> InstanceGraph:
    """Nodes of type 1 that read a node of type 0, and one that reads a node of type 2 that reads one of type 0."""
    return InstanceGraph.from_arrays([0, 1, 0, 2, 1], [0, 0, 1, 1, 2, 3], [0, 2, 3])


def test_a_node_that_waited(fork: InstanceGraph) -> None:
    early = Schedule.from_batches(fork, [(0, [0, 2]), (1, [1]), (2, [3]), (1, [4])])
    one = find_batch_gaps(fork, early)[1]
    assert one.gaps == (Gap(3, 1, dependent=0, waiting=1, ready=0, waited_for={"2": 1}),)
    assert (one.batches, one.longest_path, one.above_path) == (2, 1, 1)
    assert one.waited_for == {"2": 1}


def test_a_node_that_was_left_out(fork: InstanceGraph) -> None:
    split = Schedule.from_batches(fork, [(0, [0]), (0, [2]), (2, [3]), (1, [1, 4])])
    one = find_batch_gaps(fork, split)[0]
    assert one.gaps == (Gap(1, 0, dependent=0, waiting=0, ready=1),)


def test_no_nodes() -> None:
    empty = InstanceGraph.from_arrays(np.empty(0, int), [0], np.empty(0, int))
    assert find_batch_gaps(empty, schedule(empty, "depth")[0]) == []
