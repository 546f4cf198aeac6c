"""A chain of 100,000 nodes passes through every function of the host: none recurses along it."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.batching import policy_names
from edbatch_tvm.graph import format_graph, parse_graph
from tests.graph.oracle import assert_same

NODES = 100_000


@pytest.fixture(scope="module")
def chain() -> eb.InstanceGraph:
    """Types in turn, so that a policy has to look."""
    return eb.InstanceGraph.from_arrays(np.arange(NODES) % 3, np.r_[0, np.arange(NODES)], np.arange(NODES - 1))


@pytest.mark.slow
def test_copies_and_forms(chain: eb.InstanceGraph) -> None:
    for made in (
        copy.copy(chain),
        copy.deepcopy(chain),
        pickle.loads(pickle.dumps(chain)),
        parse_graph(format_graph(chain)),
        eb.InstanceGraph.from_networkx(chain.to_networkx()),
    ):
        assert_same(made, chain)
    merged = eb.merge([chain] * 3)
    eb.validate(merged)
    assert merged.num_nodes == 3 * NODES
    assert len(str(chain).splitlines()) > NODES


@pytest.mark.slow
@pytest.mark.parametrize("policy", [*sorted({*policy_names()} - {"fsm"}), "learned"])
def test_schedules_and_plans(chain: eb.InstanceGraph, policy: str) -> None:
    made, info = eb.schedule(chain, eb.learn_policy([chain]) if policy == "learned" else policy)
    eb.check_schedule(chain, made)
    assert len(made) == eb.lower_bound(chain) == NODES
    assert str(info)
    for plan in ("batch", "order", "pq"):
        assert len(eb.plan_memory(made, chain, plan).steps) == NODES
