"""Models: results, leases of arenas, threads, and what is refused."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.batching import get_policy, postorder
from edbatch_tvm.errors import CellError, GraphError, PlanError, PolicyError, TargetError, WeightError
from edbatch_tvm.runtime.threads import physical_cores

H, WORDS = 20, 7


@I.ir_module
class Tree:
    @R.function
    def leaf(word: R.Tensor((), "int32"), embedding: R.Tensor((WORDS, H), "float32")):
        R.func_attr({"num_input": 1})
        h = R.take(embedding, word, axis=0)
        return h

    @R.function
    def node(a: R.Tensor((H,), "float32"), b: R.Tensor((H,), "float32"), W: R.Tensor((2 * H, H), "float32")):
        R.func_attr({"num_input": 2})
        with R.dataflow():
            h = R.tanh(R.matmul(R.concat([a, b], axis=0), W))
            s = R.sum(h)
            R.output(h, s)
        return (h, s)


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "embedding": rng.uniform(-1, 1, (WORDS, H)).astype(np.float32),
        "W": rng.uniform(-0.3, 0.3, (2 * H, H)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def model(weights: dict[str, np.ndarray]) -> eb.Model:
    return eb.compile(Tree, weights)


def pair(model: eb.Model, left: int, right: int) -> eb.InstanceGraph:
    b = model.builder()
    h, s = b.call("node", b.call("leaf", word=left), b=b.call("leaf", word=right))
    return b.finish(h, s)


def expected(weights: dict[str, np.ndarray], left: int, right: int) -> np.ndarray:
    table = weights["embedding"].astype(np.float64)
    return np.tanh(np.concatenate([table[left], table[right]]) @ weights["W"].astype(np.float64))


def test_results_are_views(model: eb.Model, weights: dict[str, np.ndarray]) -> None:
    result = model([pair(model, 1, 2), pair(model, 3, 3)])
    assert (len(result), result.report.batches) == (2, 2)
    h, s = result[1]
    np.testing.assert_allclose(h, expected(weights, 3, 3), atol=1e-6)
    np.testing.assert_allclose(s, expected(weights, 3, 3).sum(), atol=1e-5)
    assert s.shape == ()
    torch = pytest.importorskip("torch")
    shared = torch.from_dlpack(h)
    assert shared.data_ptr() == h.ctypes.data
    assert result[-1][0].ctypes.data == h.ctypes.data
    assert [one[0].ctypes.data for one in result[::-1]] == [h.ctypes.data, result[0][0].ctypes.data]
    assert result[np.int64(1)][0].ctypes.data == h.ctypes.data
    assert result[2:] == []
    with pytest.raises(IndexError, match="instance 2 of 2"):
        result[2]


def test_a_result_outlives_later_runs_and_gives_its_arenas_back(
    model: eb.Model, weights: dict[str, np.ndarray]
) -> None:
    kept = model([pair(model, 1, 2)])[0][0]
    for word in range(5):
        model([pair(model, word, 5)])
    np.testing.assert_allclose(kept, expected(weights, 1, 2), atol=1e-6)
    address = kept.ctypes.data
    del kept
    gc.collect()
    again = [model([pair(model, 4, 5)])[0][0].ctypes.data for _ in range(4)]
    assert address in again


def test_single_node_and_external_rows_and_zero(model: eb.Model, weights: dict[str, np.ndarray]) -> None:
    b = model.builder()
    alone = b.finish(b.call("leaf", word=6))
    h, _ = b.call("node", np.full(H, 0.5, np.float32), b.zero)
    mixed = b.finish([h])
    result = model([alone, mixed, alone])
    np.testing.assert_array_equal(result[0], weights["embedding"][6])
    wanted = np.tanh(np.full(H, 0.5) @ weights["W"][:H].astype(np.float64))
    np.testing.assert_allclose(result[1][0], wanted, atol=1e-6)
    assert result.report.lower_bound == 2


def test_many_threads_run_one_model(model: eb.Model, weights: dict[str, np.ndarray]) -> None:
    wrong: list[Any] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(20):
            words = rng.integers(0, WORDS, (rng.integers(1, 9), 2)).tolist()
            result = model([pair(model, left, right) for left, right in words])
            for (left, right), (h, _) in zip(words, result, strict=True):
                if not np.allclose(h, expected(weights, left, right), atol=1e-5):
                    wrong.append((seed, left, right))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_repeated_structure_is_scheduled_and_planned_once(model: eb.Model) -> None:
    first = model([pair(model, 1, 2), pair(model, 0, 2)])
    second = model([pair(model, 3, 4), pair(model, 5, 6)])
    assert second.schedule is first.schedule
    assert second.plan is first.plan
    assert second.report.schedule is not None
    assert second.report.schedule.cached


def test_another_plan_is_made_anew(model: eb.Model) -> None:
    some = [pair(model, 1, 2), pair(model, 0, 2)]
    before = model.plan_name
    names = ("batch", "order", "pq", "batch")
    try:
        made = []
        for model.plan_name in names:
            made.append(model(some).plan.name)
    finally:
        model.plan_name = before
    assert tuple(made) == names


def test_torch_weights_and_policies(weights: dict[str, np.ndarray]) -> None:
    torch = pytest.importorskip("torch")
    model = eb.compile(Tree, {name: torch.from_numpy(array) for name, array in weights.items()}, policy="depth")
    assert model([pair(model, 1, 2)]).report.policy == "depth"
    model.policy = "agenda"
    assert model([pair(model, 1, 2)]).report.policy == "agenda"
    with pytest.raises(PolicyError, match="unknown policy 'best of all'"):
        model.policy = "best of all"


def test_auto_selects_again_for_much_larger_graphs(
    weights: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = []

    def select(graphs: list[eb.InstanceGraph], learn: bool) -> Any:
        samples.append(graphs[0].num_nodes)
        return get_policy("depth" if len(samples) == 1 else "agenda")

    monkeypatch.setattr("edbatch_tvm.runtime.model.select_policy", select)
    model = eb.compile(Tree, weights)
    policies = [model([pair(model, 1, 2)] * count).report.policy for count in (1, 4, 5, 5, 1, 20)]
    assert policies == ["depth", "depth", "agenda", "agenda", "agenda", "agenda"]
    assert samples == [3, 15]


@pytest.mark.parametrize(("threads", "training"), [(1, False), (2, False), (1, True)])
def test_auto_keeps_large_values_in_caches(
    weights: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, threads: int, training: bool
) -> None:
    monkeypatch.setattr(postorder, "LARGE_VALUE", H * 4)
    monkeypatch.setattr(postorder, "LARGE_MINIBATCH", 2 * (3 * H + 1) * 4)
    monkeypatch.setattr("edbatch_tvm.runtime.cpu_executor.get_num_threads", lambda: threads)
    model = eb.compile(Tree, weights, training=training)
    result = model([pair(model, 1, 2), pair(model, 3, 3)])
    assert (result.report.policy == "postorder") == (threads == 1 and not training)
    np.testing.assert_allclose(result[1][0], expected(weights, 3, 3), atol=1e-6)


def refused(error: type[Exception], call: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def test_weights_that_do_not_fit(weights: dict[str, np.ndarray]) -> None:
    some = dict(weights)
    del some["W"]
    assert refused(WeightError, lambda: eb.compile(Tree, some)) == (
        "missing weights ['W']; expected the 2 weights ['embedding', 'W']"
    )
    assert "extra weights ['bias']" in refused(WeightError, lambda: eb.compile(Tree, {**weights, "bias": weights["W"]}))
    wide = {**weights, "W": weights["W"].astype(np.float64)}
    assert refused(WeightError, lambda: eb.compile(Tree, wide)) == (
        "weight 'W' is float64[40,20]; expected float32[40,20] (hint: convert it with .astype('float32'))"
    )
    turned = {**weights, "W": weights["W"].T}
    assert refused(WeightError, lambda: eb.compile(Tree, turned)) == (
        "weight 'W' is float32[20,40]; expected float32[40,20]"
    )
    assert "a NoneType" in refused(WeightError, lambda: eb.compile(Tree, {**weights, "W": None}))


def test_minibatches_that_are_none(model: eb.Model) -> None:
    assert refused(GraphError, lambda: model([])) == "an empty minibatch: 0 instances; expected 1 or more"
    assert "instance 0 is a int" in refused(GraphError, lambda: model([3]))  # type: ignore[list-item]
    assert "model([instance])" in refused(GraphError, lambda: model(pair(model, 1, 2)))  # type: ignore[arg-type]
    bare = eb.InstanceGraph.from_arrays([0], [0, 0], [])
    assert "instance 1 was built for other cells: none (a bare graph)" in refused(
        GraphError, lambda: model([pair(model, 1, 2), bare])
    )


def test_a_graph_made_by_hand_is_checked(model: eb.Model) -> None:
    def leaf(word: int) -> eb.InstanceGraph:
        arrays = np.zeros(1, np.int16), np.zeros(2, np.int32), np.zeros(0, np.int32)
        attributes = {(0, "word"): np.array([word], np.int32)}
        return eb.InstanceGraph(*arrays, model.signature, attributes=attributes, outputs=np.zeros(1, np.int32))

    assert len(model([leaf(2)])) == 1
    assert refused(GraphError, lambda: model([leaf(WORDS)])) == (
        f"instance 0: index out of range: 'word' of node 0 (leaf) is {WORDS}; expected 0 to {WORDS - 1}"
    )


def test_an_empty_instance(model: eb.Model) -> None:
    empty = model.builder().finish([])
    assert list(model([empty, empty])) == [[], []]
    result = model([empty, pair(model, 1, 1)])
    assert (len(result[0]), len(result[1])) == (0, 2)


def test_values_asked_for_that_are_none(model: eb.Model) -> None:
    result = model([pair(model, 1, 2)])
    assert "value 99 is no output of a node" in refused(GraphError, lambda: result.values([99]))
    assert "values of specs float32[20], float32[]" in refused(GraphError, lambda: result.values([4, 5]))
    assert "no values" in refused(GraphError, lambda: result.values([]))


def test_targets_and_plans(weights: dict[str, np.ndarray]) -> None:
    assert "unknown target 'vax'" in refused(TargetError, lambda: eb.compile(Tree, weights, target="vax"))
    assert "target 'c'; expected llvm" in refused(TargetError, lambda: eb.compile(Tree, weights, target="c"))
    assert "unknown plan 'nice'" in refused(PlanError, lambda: eb.compile(Tree, weights, plan="nice"))
    assert "cells are a dict" in refused(CellError, lambda: eb.compile({}, weights))  # type: ignore[arg-type]


def test_another_cpu_target_gives_the_same(model: eb.Model, weights: dict[str, np.ndarray]) -> None:
    plain = eb.compile(Tree, weights, target={"kind": "llvm", "mcpu": "x86-64"})
    a, b = plain([pair(plain, 1, 2)])[0], model([pair(model, 1, 2)])[0]
    np.testing.assert_allclose(a[0], b[0], atol=1e-6)


def test_a_cell_of_float64(weights: dict[str, np.ndarray]) -> None:
    @I.ir_module
    class Wide:
        @R.function
        def cell(x: R.Tensor((H,), "float64"), W: R.Tensor((H, H), "float64")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.tanh(R.matmul(x, W))
                R.output(y)
            return y

    matrix = weights["W"][:H].astype(np.float64)
    model = eb.compile(Wide, {"W": matrix})
    b = model.builder()
    row = np.linspace(0, 1, H)
    result = model([b.finish(b.call("cell", row))])
    np.testing.assert_allclose(result[0], np.tanh(row @ matrix), rtol=1e-12)
    assert model.paths["cell"] == "stage"


def test_importing_the_package_is_cheap() -> None:
    code = (
        "import sys, edbatch_tvm as eb; eb.InstanceGraph; eb.schedule; eb.plan_memory; "
        "print([m for m in ('tvm', 'torch', 'networkx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_physical_cores_are_used() -> None:
    import tvm

    assert tvm.get_global_func("runtime.NumThreads")() == physical_cores()


def test_values_of_a_builder_in_results(model: eb.Model) -> None:
    b = model.builder()
    left, right = b.call("leaf", word=1), b.call("leaf", word=2)
    first = b.finish([left, right])
    result = model([first])
    np.testing.assert_array_equal(result.value(right), result[0][1])
    np.testing.assert_array_equal(result.values([right, left]), result[0][::-1])
    second = b.finish(b.call("leaf", word=3))
    for other in (model([second]), model([first, second])):
        for ask in (lambda other=other: other.value(left), lambda other=other: other.values([left])):
            assert "a value of a builder that did not build this result's graph" in refused(GraphError, ask)
