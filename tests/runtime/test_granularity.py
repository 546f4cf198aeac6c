"""Models of granularity ``op``: results of every value of every cell equal the float64 reference."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.batching import check_schedule
from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.errors import GraphError, PlanError
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.memory import PLANS
from edbatch_tvm.models import WORKLOADS, get_workload
from edbatch_tvm.runtime import Model
from relay_ext.signature import weights_of
from tests.random_cells import cells_for, reference_for
from tests.runtime.test_differential import POLICIES, random_signature
from tests.strategies import graphs

H = 16


def check(model: Model, instances: list[InstanceGraph], reference: list[tuple[np.ndarray, ...]]) -> None:
    """Compare every output of every cell."""
    cells = model.merge_cells(instances)
    result = model(instances)
    check_schedule(result.graph, result.schedule)
    value_of = model.expand(cells).value_of
    largest = max((np.abs(array).max() for node in reference for array in node), default=1.0)
    for node, arrays in enumerate(reference):
        for slot, array in enumerate(arrays):
            got = result.values([value_of[node * cells.stride + slot]])[0]
            np.testing.assert_allclose(got, array, rtol=0, atol=1e-5 * largest)


@lru_cache(maxsize=4)
def random_model(seed: int, general: bool) -> tuple[Model, dict]:
    signature = random_signature(seed)
    mod = cells_for(signature, seed, general)
    rng = np.random.default_rng(seed)
    weights = {
        name: (rng.uniform(-1, 1, spec.shape) / np.sqrt(spec.shape[0])).astype(np.float32)
        for name, spec in weights_of(mod).items()
    }
    model = eb.compile(mod, weights, granularity="op")
    assert model.cells == signature
    return model, reference_for(signature, seed, general, weights)


@pytest.mark.parametrize("general", [False, True], ids=["stage", "general"])
@pytest.mark.parametrize("seed", [0])
def test_random_models_equal_the_reference(seed: int, general: bool) -> None:
    model, reference = random_model(seed, general)
    instances = st.lists(graphs(model.cells, max_nodes=10), min_size=1, max_size=4)

    @settings(max_examples=12)
    @given(instances, st.sampled_from(POLICIES), st.sampled_from(PLANS))
    def compare(some: list[InstanceGraph], policy: str, plan: str) -> None:
        model.policy, model.plan_name = policy, plan
        check(model, some, run_reference(model.merge_cells(some), reference, {}))

    compare()


@pytest.mark.slow
@pytest.mark.parametrize("general", [False, True], ids=["stage", "general"])
@pytest.mark.parametrize("seed", [1, 4, *range(200, 220)])
def test_many_random_models_equal_the_reference(seed: int, general: bool) -> None:
    test_random_models_equal_the_reference(seed, general)


QUICK = ("treelstm", "lattice-lstm", "childsum-tree")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in WORKLOADS]
)
def test_workloads(name: str) -> None:
    workload = get_workload(name)
    weights = workload.weights(H)
    model = eb.compile(workload.cells(H), weights, granularity="op", policy="lookahead")
    instances = workload.generate(4, model.cells, 3)
    check(model, instances, run_reference(model.merge_cells(instances), workload.reference, weights))


def cells() -> object:
    @I.ir_module
    class Cells:
        @R.function
        def swap(x: R.Tensor((H,), "float32"), y: R.Tensor((H,), "float32")):
            R.func_attr({"num_input": 2})
            return (y, x)

        @R.function
        def scale(x: R.Tensor((H,), "float32"), unread: R.Tensor((3,), "float32"), b: R.Tensor((H,), "float32")):
            R.func_attr({"num_input": 2})
            with R.dataflow():
                y = R.tanh(R.multiply(x, b))
                R.output(y)
            return y

    return Cells


def test_inputs_returned_and_operands_not_read() -> None:
    weight = np.linspace(-1, 1, H, dtype=np.float32)
    model = eb.compile(cells(), {"b": weight}, granularity="op")
    b = model.builder()
    rows = np.arange(2 * H, dtype=np.float32).reshape(2, H)
    zero, first = b.call("swap", rows[0], b.zero)
    second = b.call("scale", rows[1], np.ones(3, np.float32))
    result = model([b.finish([zero, first, second]), b.finish()])
    for got, expected in zip(result[0], [np.zeros(H), rows[0], np.tanh(rows[1] * weight)], strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
    assert result[1] == []
    assert result.graph.type_names == ("copy", "multiply_b", "tanh")


def test_instances_are_of_cells() -> None:
    model = eb.compile(cells(), {"b": np.zeros(H, np.float32)}, granularity="op", policy="agenda")
    assert repr(model) == "Model(Signature(swap, scale), target='llvm', policy='agenda', granularity='op')"
    b = model.builder()
    b.call("swap", b.zero, b.zero)
    instance = b.finish()
    merged = model.merge([instance, instance])
    assert merged.num_nodes == 4
    with pytest.raises(GraphError, match=r"instance 0 was built for other cells: copy.* expected swap"):
        model.merge([merged])


def test_granularity_of_a_model_of_cells() -> None:
    model = eb.compile(cells(), {"b": np.zeros(H, np.float32)})
    assert (model.granularity, model.cells) == ("cell", model.signature)
    with pytest.raises(GraphError, match="by a model of granularity 'cell'; expected granularity 'op'"):
        model.expand(model.merge([model.builder().finish()]))
    with pytest.raises(PlanError, match=r"unknown granularity 'node'; expected one of cell, .*op"):
        eb.compile(cells(), {}, granularity="node")


def test_unfused_form() -> None:
    """One kernel a batch, and one for every operand that is not contiguous; the same results to the last bit."""
    workload = get_workload("lattice-lstm")
    mod, weights = workload.cells(H), workload.weights(H)
    fused, unfused = (
        eb.compile(mod, weights, granularity="op", fused=fused, policy="lookahead") for fused in (True, False)
    )
    pool = workload.generate(8, fused.cells, 5)

    @settings(max_examples=10)
    @given(st.lists(st.sampled_from(pool), min_size=1, max_size=6), st.sampled_from(POLICIES), st.sampled_from(PLANS))
    def compare(instances: list[InstanceGraph], policy: str, plan: str) -> None:
        for model in (fused, unfused):
            model.policy, model.plan_name = policy, plan
        one, other = fused(instances), unfused(instances)
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)
        report = other.report
        assert report.operands == one.report.operands
        assert report.kernel_calls == report.batches + report.operands["indexed"] + report.operands["broadcast"]
        assert (one.report.bytes_gathered, report.bytes_indexed) == (0, 0)
        assert report.bytes_gathered >= one.report.bytes_indexed

    compare()


def test_random_models_in_unfused_form_equal_the_reference() -> None:
    signature = random_signature(0)
    mod = cells_for(signature, 0, True)
    weights = {name: np.full(spec.shape, 0.1, np.float32) for name, spec in weights_of(mod).items()}
    model = eb.compile(mod, weights, granularity="op", fused=False)
    reference = reference_for(signature, 0, True, weights)

    @settings(max_examples=12)
    @given(st.lists(graphs(model.cells, max_nodes=10), min_size=1, max_size=4), st.sampled_from(POLICIES))
    def compare(some: list[InstanceGraph], policy: str) -> None:
        model.policy = policy
        check(model, some, run_reference(model.merge_cells(some), reference, {}))

    compare()


def test_the_unfused_form_is_one_of_ops() -> None:
    with pytest.raises(PlanError, match="fused=False at granularity 'cell'; expected granularity=\"op\""):
        eb.compile(cells(), {}, fused=False)
