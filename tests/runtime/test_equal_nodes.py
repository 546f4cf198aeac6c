"""Computing equal nodes once gives the same bits, and the same gradients."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edbatch_tvm as eb
from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph import InstanceGraph, merge
from edbatch_tvm.graph.equal_nodes import merge_equal_nodes
from edbatch_tvm.memory import PLANS
from edbatch_tvm.models import get_workload
from edbatch_tvm.runtime import Model, Result
from relay_ext.signature import weights_of
from tests.random_cells import cells_for
from tests.runtime.test_differential import POLICIES, random_signature
from tests.strategies import graphs


def every_value(result: Result) -> list[np.ndarray]:
    graph = result.graph
    assert graph.signature is not None
    arenas = graph.signature.output_arena[graph.node_type]
    return [np.asarray(result.value(value)) for value in np.flatnonzero(arenas.ravel() >= 0).tolist()]


def outputs_of(result: Result, instance: int) -> list[np.ndarray]:
    found = result[instance]
    return list(map(np.asarray, found)) if isinstance(found, list) else [np.asarray(found)]


@lru_cache(maxsize=4)
def random_model(seed: int, target: str, training: bool) -> Model:
    signature = random_signature(seed)
    mod = cells_for(signature, seed, False)
    rng = np.random.default_rng(seed)
    weights = {
        name: (rng.uniform(-1, 1, spec.shape) / np.sqrt(spec.shape[0])).astype(np.float32)
        for name, spec in weights_of(mod).items()
    }
    return eb.compile(mod, weights, target=target, training=training)


def assert_nearly_same_bits(one: np.ndarray, other: np.ndarray) -> None:
    """Equal bits, or a few last ones of the largest number: on a Zen 3, kernels for two rows and for four differ so."""
    scale = np.spacing(max(np.abs(one).max(initial=0), np.float32(1e-6)))
    assert one.tobytes() == other.tobytes() or np.abs(one - other).max() <= 4 * scale


def same_bits(seed: int, target: str, examples: int) -> None:
    model = random_model(seed, target, False)
    instances = st.lists(graphs(model.signature, max_nodes=10, max_repeat=2), min_size=1, max_size=3)

    @settings(max_examples=examples)
    @given(instances, st.integers(1, 3), st.sampled_from(POLICIES), st.sampled_from(PLANS))
    def check(some: list[InstanceGraph], copies: int, policy: str, plan: str) -> None:
        model.policy, model.plan_name = policy, plan
        model.equal_nodes = False
        plain = model(some * copies)
        model.equal_nodes = True
        merged = model(some * copies)
        equal = merge_equal_nodes(merge(some * copies))
        assert merged.report.merged == equal.merged
        assert merged.report.calls == plain.report.calls == plain.graph.num_nodes == merged.graph.num_nodes
        assert merged.report.graph.num_nodes == equal.graph.num_nodes
        for one, other in zip(every_value(plain), every_value(merged), strict=True):
            assert_nearly_same_bits(one, other)
        for instance in range(len(plain)):
            for own, its in zip(outputs_of(plain, instance), outputs_of(merged, instance), strict=True):
                assert_nearly_same_bits(own, its)

    check()


@pytest.mark.parametrize(("seed", "target"), [(0, "llvm"), (0, "cuda-emulated")])
def test_same_bits(seed: int, target: str) -> None:
    same_bits(seed, target, 20 if target == "llvm" else 4)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["llvm", "cuda-emulated"])
@pytest.mark.parametrize("seed", range(1, 30))
def test_same_bits_of_many(seed: int, target: str) -> None:
    same_bits(seed, target, 60 if target == "llvm" else 10)


@pytest.mark.parametrize("seed", [3, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 4))])
def test_gradients_are_added(seed: int) -> None:
    model = random_model(seed, "llvm", True)
    instances = st.lists(graphs(model.cells, max_nodes=10, max_repeat=2), min_size=1, max_size=3)

    @settings(max_examples=6)
    @given(instances, st.integers(1, 3), st.integers(0, 1000))
    def check(some: list[InstanceGraph], copies: int, number: int) -> None:
        rng = np.random.default_rng(number)
        found = []
        cotangents: list[list[np.ndarray]] = []
        for choice in (False, True):
            model.equal_nodes = choice
            result = model(some * copies)
            if not cotangents:
                shapes = [[one.shape for one in outputs_of(result, i)] for i in range(len(result))]
                cotangents = [[rng.standard_normal(shape).astype(np.float32) for shape in own] for own in shapes]
            scalar = result.graph.scalar_output
            gradients = result.backward([o[0] if s else o for o, s in zip(cotangents, scalar, strict=True)])
            arrays = {name: np.array(gradients[name]) for name in gradients}
            found.append(arrays | {f"external {arena}": rows for arena, rows in enumerate(gradients.external)})
        plain, merged = found
        assert plain.keys() == merged.keys()
        for name, one in plain.items():
            np.testing.assert_allclose(merged[name], one, rtol=0, atol=1e-5 * max(1e-30, np.abs(one).max(initial=0)))

    check()


def workload_model(equal_nodes: bool | str) -> tuple[Model, list[InstanceGraph]]:
    workload = get_workload("treelstm")
    model = eb.compile(workload.cells(24), workload.weights(24), policy="agenda", equal_nodes=equal_nodes)
    return model, [workload.graph(model.builder(), item) for item in workload.source.generate(24, 3)]


def test_fewer_nodes_run() -> None:
    model, instances = workload_model(True)
    result = model(instances + instances)
    report = result.report
    assert report.merged >= len(result.graph) // 2
    assert len(result.schedule.order) == report.graph.num_nodes == len(result.graph) - report.merged
    assert f"{report.merged} of {report.calls} nodes are equal" in str(report)
    instance = result.graph.num_instances // 2
    for first in range(instance):
        for one, other in zip(outputs_of(result, first), outputs_of(result, instance + first), strict=True):
            assert np.shares_memory(one, other)


def test_auto_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the seconds of a node: the clock of this test says which kind is faster."""
    model, instances = workload_model("auto")
    for faster in (True, False):
        model.equal_nodes = "auto"
        choice = model._equal_nodes
        for _ in range(20):
            found = choice.found(model.merge(instances))
            choice.took(model.merge(instances), found, 1.0 if (found is not None) == faster else 2.0)
        assert choice.merges is faster
    assert model.equal_nodes == "auto"


def test_auto_stops_where_no_nodes_are_equal() -> None:
    model, _ = workload_model("auto")
    builder = model.builder()
    instance = builder.finish(builder.call("leaf", word=1))
    model([instance])
    assert model._equal_nodes.merges is False


@pytest.mark.parametrize("given_option", ["yes", None, 2, "True"])
def test_other_options(given_option: object) -> None:
    with pytest.raises(GraphError, match="equal_nodes"):
        workload_model(given_option)  # type: ignore[arg-type]
