"""Minibatches that are run in one call of compiled code are what the steps in Python make of them, bit by bit."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edbatch_tvm as eb
from edbatch_tvm.batching import Policy
from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph import InstanceGraph, Signature, parse_graph
from edbatch_tvm.models import WORKLOADS, get_workload
from edbatch_tvm.runtime import Model, Result, one_call, split_batches
from edbatch_tvm.runtime.one_call import OneCallResult
from edbatch_tvm.runtime.program import SINGLE_MULTIPLIES
from relay_ext.signature import weights_of
from tests.random_cells import cells_for
from tests.runtime.test_differential import POLICIES, random_signature
from tests.strategies import graphs

pytestmark = pytest.mark.skipif(one_call.native_core() is None, reason="no C compiler")


def in_steps(model: Model, instances: list[InstanceGraph]) -> Result:
    return model.run(model.prepare(instances))


def assert_same(found: Result, expected: Result) -> None:
    assert isinstance(found, OneCallResult)
    assert not isinstance(expected, OneCallResult)
    assert len(found) == len(expected)
    for own, its in zip(found, expected, strict=True):
        assert type(own) is type(its)
        for one, other in zip(*([part] if isinstance(part, np.ndarray) else part for part in (own, its)), strict=True):
            assert (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())
    report, other = found.report, expected.report
    assert (report.batches, report.calls, report.kernel_calls) == (other.batches, other.calls, other.kernel_calls)
    assert (report.operands, report.lookups, report.bytes_indexed) == (
        other.operands,
        other.lookups,
        other.bytes_indexed,
    )
    assert report.policy == other.policy
    assert report.value_bytes == other.value_bytes
    assert report.lower_bound == other.lower_bound
    assert report.seconds.keys() == other.seconds.keys()
    assert min(report.seconds.values()) > 0
    assert sum(report.seconds.values()) == pytest.approx(2 * report.seconds["total"])
    assert str(report).split("\nbuild")[0] == str(other).split("\nbuild")[0]
    assert np.array_equal(found.schedule.order, expected.schedule.order)
    assert np.array_equal(found.schedule.batch_ptr, expected.schedule.batch_ptr)
    assert np.array_equal(found.plan.steps, expected.plan.steps)
    used = expected.plan.value_row > 0
    assert np.array_equal(found.plan.value_row[used], expected.plan.value_row[used])
    graph = found.graph
    assert np.array_equal(graph.operand_value, expected.graph.operand_value)
    assert np.array_equal(graph.outputs, expected.graph.outputs)
    assert graph.signature is not None
    arenas = graph.signature.output_arena[graph.node_type].ravel()
    for value in np.flatnonzero(arenas >= 0).tolist():
        assert found.value(value).tobytes() == expected.value(value).tobytes()


FEW = "treelstm", "lattice-lstm", "mvrnn"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in WORKLOADS]
)
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_workloads(name: str, dtype: str) -> None:
    workload = get_workload(name)
    model = eb.compile(workload.cells(20), workload.weights(20), policy="agenda", dtype=dtype)
    items = workload.source.generate(5, 1)
    builder = model.builder()
    instances = [workload.graph(builder, item) for item in items]
    flat = all(len(spec.shape) == 1 for spec in model.signature.value_specs)
    for some in ([instances[0]], instances, instances):
        found, expected = model(some), in_steps(model, some)
        if flat:
            assert_same(found, expected)
        else:  # matrices are for Python
            assert not isinstance(found, OneCallResult)


def random_model(signature: Signature, seed: int) -> Model:
    mod = cells_for(signature, seed, False)
    rng = np.random.default_rng(seed)
    weights = {
        name: (rng.uniform(-1, 1, spec.shape) / np.sqrt(spec.shape[0])).astype(np.float32)
        for name, spec in weights_of(mod).items()
    }
    return eb.compile(mod, weights, policy="agenda")


# The cells of seed 2 have attributes, several outputs, and operands with and without a number: two cells in all.
@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=() if seed == 2 else pytest.mark.slow) for seed in range(1, 40)]
)
def test_random_graphs(seed: int) -> None:
    signature = random_signature(seed, shapes=((16,), (3,)))
    model = random_model(signature, seed)
    some = st.lists(graphs(signature, min_nodes=1, max_nodes=10, external=False), min_size=1, max_size=5)

    @settings(max_examples=6)
    @given(some, st.sampled_from(POLICIES))
    def check(instances: list[InstanceGraph], policy: str) -> None:
        for graph in instances:  # as a builder of this model makes them
            graph.signature = model.cells
        model.policy = policy
        expected = in_steps(model, instances)  # first: "auto" is selected on it
        assert_same(model(instances), expected)

    check()


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_in_pieces(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_batches, "_CACHE", 1)
    monkeypatch.setattr(split_batches, "_LEAST", 3)
    before = eb.get_num_threads()
    eb.set_num_threads(threads)
    try:
        model, instances = tree_model("treegru")
        found, expected = model(instances), in_steps(model, instances)
    finally:
        eb.set_num_threads(before)
    assert_same(found, expected)
    kernels = model.executor.program.kernels_of_type[found.schedule.batch_type]
    assert found.report.kernel_calls > kernels.sum()


def tree_model(name: str = "treelstm", **options: Any) -> tuple[Model, list[InstanceGraph]]:
    workload = get_workload(name)
    model = eb.compile(workload.cells(12), workload.weights(12), **{"policy": "agenda", **options})
    return model, [workload.graph(model.builder(), item) for item in workload.source.generate(4, 3)]


@pytest.mark.parametrize("change", ["pickled", "merged", "tuple", "array", "policy", "plan", "equal nodes", "training"])
def test_what_python_computes(change: str) -> None:
    model, instances = tree_model(training=True) if change == "training" else tree_model()
    expected = np.concatenate(list(model(instances)))
    given_instances: Any = instances
    if change == "pickled":
        given_instances = pickle.loads(pickle.dumps(instances))
    elif change == "merged":
        given_instances = [model.merge(instances)]
    elif change == "tuple":
        given_instances = tuple(instances)
    elif change == "array":
        given_instances = np.empty(len(instances), object)
        given_instances[:] = instances
    elif change == "policy":
        model.policy = Longest()
    elif change == "plan":
        model.plan_name = "order"
    elif change == "equal nodes":
        model.equal_nodes = True
    result = model(given_instances)
    assert isinstance(result, OneCallResult) == (change in ("merged", "tuple"))
    np.testing.assert_allclose(np.concatenate(list(result)), expected, atol=1e-6)


class Longest(Policy):
    """A policy that compiled code does not have."""

    name = "longest"

    def run(self, graph: InstanceGraph) -> Any:
        from edbatch_tvm.batching import get_policy

        return get_policy("agenda").run(graph)


def test_results_keep_their_values() -> None:
    """Arenas are used again only when nothing refers to them."""
    model, instances = tree_model()
    first = [np.array(one) for one in model(instances)]
    kept = list(model(instances))
    for _ in range(5):
        model(instances[:1])
        model(instances[::-1])
    assert all(np.array_equal(one, other) for one, other in zip(kept, first, strict=True))


def test_memory_is_used_again() -> None:
    """A result ends with its last reference, and its arenas are those of the next minibatch."""
    model, instances = tree_model()
    places = []
    for _ in range(4):
        result = model(instances)
        assert isinstance(result, OneCallResult)
        places.append([view.ctypes.data for view in result._views])
        del result
    assert places[1:] == places[:-1]


def test_new_weights_and_threads() -> None:
    model, instances = tree_model()
    workload = get_workload("treelstm")
    model(instances)
    model.refresh(workload.weights(12, seed=7))
    assert_same(model(instances), in_steps(model, instances))
    expected = np.concatenate(list(model(instances)))
    wrong: list[int] = []

    def many(number: int) -> None:
        found = (np.concatenate(list(model(instances))) for _ in range(50))
        wrong.extend(number for one in found if not np.array_equal(one, expected))

    threads = [threading.Thread(target=many, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_large_minibatches() -> None:
    """What is much work is left to be made on several threads."""
    workload = get_workload("treelstm")
    model = eb.compile(workload.cells(256), workload.weights(256), policy="agenda")
    instances = [workload.graph(model.builder(), item) for item in workload.source.generate(60, 3)]
    assert model.merge(instances).type_count @ model.executor.program.multiplies > SINGLE_MULTIPLIES  # type: ignore[attr-defined]
    assert_same(model(instances), in_steps(model, instances))


def test_very_large_minibatches_are_for_python() -> None:
    model, instances = tree_model()
    long = max(instances, key=len)
    many = [long] * (one_call.MOST_NODES // len(long))
    assert isinstance(model(many), OneCallResult)
    found = model([*many, long])
    assert not isinstance(found, OneCallResult)
    assert all(np.array_equal(one, other) for one, other in zip(found[0], found[len(many)], strict=True))


def test_minibatches_of_minibatches() -> None:
    """Graphs that are several instances each, as readers of arrays make them, beside single ones."""
    model, instances = tree_model()
    together = [model.merge(instances[:2]), instances[2], model.merge(instances[2:])]
    found = model(together)
    assert_same(found, in_steps(model, together))
    assert len(found) == 3 + len(instances) - 2
    assert all(np.array_equal(one, other) for one, other in zip(found[-1], model(instances)[-1], strict=True))


def test_instances_that_python_made() -> None:
    """Those of Python's builder, and those that come from text or arrays, have no block yet in which all arrays lie."""
    model, instances = tree_model()
    expected = model(instances)
    signature = model.signature
    again = [parse_graph(str(graph), signature) for graph in instances]
    assert all(graph.merge_row is None for graph in again)
    for _ in range(2):
        assert_same(model(again), in_steps(model, instances))
        assert all(np.array_equal(one, other) for one, other in zip(model(again)[0], expected[0], strict=True))


def test_errors_are_those_of_python() -> None:
    model, instances = tree_model()
    for bad in ([], [None], [instances[0], 3], instances[0], "text"):
        with pytest.raises(GraphError):
            model(bad)  # type: ignore[arg-type]
    broken = copy.copy(instances[0])
    broken.checked = False
    broken.operand_value = broken.operand_value + 10_000
    with pytest.raises(GraphError):
        model([broken])


def test_without_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    model, instances = tree_model()
    expected = list(model(instances))
    monkeypatch.setattr("edbatch_tvm.find_native.python_only", True)
    result = model(instances)
    assert not isinstance(result, OneCallResult)
    assert all(np.array_equal(one, other) for one, other in zip(result, expected, strict=True))


def test_values_by_builder() -> None:
    """Of an instance that was run alone, values are known as its builder gave them out."""
    workload = get_workload("treelstm")
    model = eb.compile(workload.cells(12), workload.weights(12), policy="agenda")
    builder = model.builder()
    h, c = builder.call("leaf", word=3)
    instance = builder.finish(builder.call("readout", h))
    result = model([instance])
    assert isinstance(result, OneCallResult)
    assert result.value(h).shape == result.value(c).shape == (12,)
    assert np.array_equal(result.values([h, c])[0], result.value(h))
