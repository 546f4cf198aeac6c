"""The native kernels and the plain Python reference give equal results, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edbatch_tvm.batching import ENCODINGS, FsmPolicy, Policy, get_policy, heights
from edbatch_tvm.batching.bounds import reference_heights
from edbatch_tvm.batching.encoding import encoding_id
from edbatch_tvm.batching.fsm import reference_run_table, run_table
from edbatch_tvm.batching.imitation import count_actions
from edbatch_tvm.batching.integer_costs import UNLIMITED, IntegerCosts
from edbatch_tvm.batching.portfolio import QUICK
from edbatch_tvm.batching.qlearning import reference_episode
from edbatch_tvm.batching.search import beam_search, reference_beam_search, schedule_of_types
from edbatch_tvm.batching.state_table import StateTable, ValueTable
from edbatch_tvm.graph import InstanceGraph, merge
from edbatch_tvm.native import NativeKernels, load
from tests.batching.graphs import lattice, random_dag, typed_dags


@pytest.fixture(scope="module")
def native() -> NativeKernels:
    """The kernels; they must build where these tests run."""
    return load()


def reference(policy: Policy, graph: InstanceGraph) -> object:
    """The policy's plain Python form."""
    return policy.reference(graph)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", QUICK)
@given(graph=typed_dags())
def test_rules(graph: InstanceGraph, name: str) -> None:
    policy = get_policy(name)
    assert policy(graph) == reference(policy, graph)


@given(graph=typed_dags())
def test_heights(graph: InstanceGraph) -> None:
    assert np.array_equal(heights(graph), reference_heights(graph))


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(graph=typed_dags(), seed=st.integers(0, 100))
def test_learning_episodes(graph: InstanceGraph, seed: int, encoding: str, native: NativeKernels) -> None:
    code = encoding_id(encoding)
    ours, theirs = (ValueTable(graph.num_types, steps=3, seed=seed) for _ in range(2))
    for threshold in (1 << 32, 1 << 30, 1 << 31, 0, 0):
        batches = native.learn_episode(graph, code, ours, threshold)
        assert batches == reference_episode(graph, code, theirs, threshold)
        assert ours.states == theirs.states
        assert np.array_equal(ours.key, theirs.key)
        assert np.array_equal(ours.rows, theirs.rows)
        assert ours.random_state == theirs.random_state


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(graph=typed_dags(), other=typed_dags(), seed=st.integers(0, 100))
def test_tables(graph: InstanceGraph, other: InstanceGraph, seed: int, encoding: str) -> None:
    """A table learned at random from one graph, on another: known and unknown states."""
    both = merge([graph, other])
    code = encoding_id(encoding)
    values = ValueTable(both.num_types, seed=seed)
    part = InstanceGraph(
        both.node_type[: graph.num_nodes],
        both.operand_ptr[: graph.num_nodes + 1],
        graph.operand_value,
        type_label=both.type_label,
    )
    for _ in range(3):
        reference_episode(part, code, values, 1 << 31)
    table = StateTable(values.greedy(code))
    schedule, misses = run_table(both, code, table)
    assert (schedule, misses) == reference_run_table(both, code, table)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(graph=typed_dags())
def test_replay(graph: InstanceGraph, encoding: str) -> None:
    schedule = get_policy("lookahead")(graph)
    counts, expected = (ValueTable(graph.num_types) for _ in range(2))
    code = encoding_id(encoding)
    count_actions(graph, schedule, code, counts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edbatch_tvm.find_native.python_only", True)
        count_actions(graph, schedule, code, expected)
    assert counts.visits() == expected.visits()
    assert counts.most_frequent() == expected.most_frequent()


@pytest.mark.parametrize("types", [1, 7, 8, 9, 40])
def test_larger_graphs(types: int) -> None:
    graph = random_dag(types, 2000, types, 4000)
    for name in QUICK:
        policy = get_policy(name)
        assert policy(graph) == reference(policy, graph)
    for encoding in ENCODINGS:
        fsm = FsmPolicy(encoding, graph.type_names, {})
        assert fsm(graph) == fsm.reference(graph)


def test_a_lattice_minibatch(rng: np.random.Generator) -> None:
    graph = merge([lattice(rng) for _ in range(16)])
    for name in QUICK:
        policy = get_policy(name)
        assert policy(graph) == reference(policy, graph)


@given(graph=typed_dags(), width=st.integers(1, 6), slack=st.integers(0, 3), data=st.data())
def test_search(graph: InstanceGraph, width: int, slack: int, data: st.DataObject) -> None:
    types, _ = beam_search(graph, width)
    assert types is not None
    same(beam_search(graph, width), reference_beam_search(graph, width, UNLIMITED, IntegerCosts.unit(graph.num_types)))
    limit = len(types) - slack
    same(
        beam_search(graph, width, limit), reference_beam_search(graph, width, limit, IntegerCosts.unit(graph.num_types))
    )
    costs = data.draw(arrays(np.int64, (graph.num_types, 4), elements=st.integers(1, 5)))
    integer_costs = IntegerCosts(costs, costs[:, 1:].min(axis=1))
    same(
        beam_search(graph, width, integer_costs=integer_costs),
        reference_beam_search(graph, width, UNLIMITED, integer_costs),
    )
    schedule = schedule_of_types(graph, types)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edbatch_tvm.find_native.python_only", True)
        assert schedule_of_types(graph, types) == schedule


def same(ours: tuple[np.ndarray | None, bool], theirs: tuple[np.ndarray | None, bool]) -> None:
    """Fail unless two results of a beam are equal."""
    assert ours[1] == theirs[1]
    assert (ours[0] is None) == (theirs[0] is None)
    if ours[0] is not None and theirs[0] is not None:
        assert ours[0].tolist() == theirs[0].tolist()
