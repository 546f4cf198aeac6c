"""Models on a device: the emulated one."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.errors import GraphError, PlanError
from edbatch_tvm.runtime.device_executor import pack_tables
from schedules.cuda.kernel_arguments import ATTRIBUTES, BATCHES, COLUMNS, INDEX_AT, STEPS_AT
from tests.runtime.test_model import H, Tree, expected, pair


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "embedding": rng.uniform(-1, 1, (7, H)).astype(np.float32),
        "W": rng.uniform(-0.3, 0.3, (2 * H, H)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def model(weights: dict[str, np.ndarray]) -> eb.Model:
    return eb.compile(Tree, weights, target="cuda-emulated")


def test_results_stay_until_they_are_asked_for(model: eb.Model, weights: dict[str, np.ndarray]) -> None:
    result: Any = model([pair(model, 1, 2), pair(model, 3, 3)])
    h, s = result[1]
    assert (h.shape, h.dtype, s.shape) == ((H,), np.float32, ())
    np.testing.assert_allclose(h.numpy(), expected(weights, 3, 3), atol=1e-6)
    np.testing.assert_allclose(np.asarray(s), expected(weights, 3, 3).sum(), atol=1e-5)
    np.testing.assert_array_equal(result.host()[1][0], h.numpy())
    np.testing.assert_array_equal(result.values([5 * result.graph.stride])[0], h.numpy())
    result.synchronize()


def test_a_view_outlives_later_runs(model: eb.Model, weights: dict[str, np.ndarray]) -> None:
    kept = model([pair(model, 1, 2)])[0][0]
    shared = np.from_dlpack(model([pair(model, 2, 1)])[0][0])
    for word in range(5):
        model([pair(model, word, 5)])
    np.testing.assert_allclose(kept.numpy(), expected(weights, 1, 2), atol=1e-6)
    np.testing.assert_allclose(shared, expected(weights, 2, 1), atol=1e-6)


def test_arenas_are_used_again(model: eb.Model) -> None:
    def address() -> int:
        return model([pair(model, 1, 2)])[0][0]._tensor.data_ptr()

    gc.collect()
    assert len({address() for _ in range(6)}) <= 2


def test_torch_shares_the_memory(model: eb.Model, weights: dict[str, np.ndarray]) -> None:
    torch = pytest.importorskip("torch")
    h = model([pair(model, 4, 2)])[0][0]
    tensor = torch.from_dlpack(h)
    assert tensor.data_ptr() == h._tensor.data_ptr()
    np.testing.assert_allclose(tensor.numpy(), expected(weights, 4, 2), atol=1e-6)


def test_external_rows_and_zero(model: eb.Model, weights: dict[str, np.ndarray]) -> None:
    b = model.builder()
    h, _ = b.call("node", np.full(H, 0.5, np.float32), b.zero)
    result = model([b.finish([h]), b.finish([b.call("leaf", word=6)])])
    wanted = np.tanh(np.full(H, 0.5) @ weights["W"][:H].astype(np.float64))
    np.testing.assert_allclose(result[0][0].numpy(), wanted, atol=1e-6)
    np.testing.assert_array_equal(result[1][0].numpy(), weights["embedding"][6])


def test_new_weights(weights: dict[str, np.ndarray]) -> None:
    model = eb.compile(Tree, weights, target="cuda-emulated")
    other = {name: array * np.float32(0.5) for name, array in weights.items()}
    model.refresh(other)
    np.testing.assert_allclose(model([pair(model, 1, 2)])[0][0].numpy(), expected(other, 1, 2), atol=1e-6)


def test_one_vector_holds_all_tables(model: eb.Model) -> None:
    graph = model.merge([pair(model, 1, 2), pair(model, 3, 4)])
    plan = model.plan(graph, model.schedule(graph)[0])
    words = pack_tables(model.signature, graph, plan, slab=0)
    steps = words[words[STEPS_AT] :][: words[BATCHES] * words[COLUMNS]].reshape(words[BATCHES], words[COLUMNS])
    np.testing.assert_array_equal(steps, plan.steps)
    np.testing.assert_array_equal(words[words[INDEX_AT] :][: len(plan.index)], plan.index)
    np.testing.assert_array_equal(sorted(words[words[ATTRIBUTES] :]), [1, 2, 3, 4])


def test_arenas_too_large_for_indices_of_32_bits_are_refused(model: eb.Model) -> None:
    kernels: Any = model.executor
    with pytest.raises(GraphError, match="an arena of less than 2"):
        kernels._acquire((2**30,) * len(model.signature.value_specs), 0)


def test_what_a_gpu_does_not_do(weights: dict[str, np.ndarray]) -> None:
    with pytest.raises(PlanError, match="fused=False for target 'cuda-emulated'"):
        eb.compile(Tree, weights, target="cuda-emulated", granularity="op", fused=False)
    from tvm.script import ir as I
    from tvm.script import relax as R

    @I.ir_module
    class Wide:
        @R.function
        def cell(number: R.Tensor((), "int64"), v: R.Tensor((H,), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.multiply(v, R.astype(number, "float32"))
                R.output(y)
            return y

    model = eb.compile(Wide, {"v": np.ones(H, np.float32)}, target="cuda-emulated")
    b = model.builder()
    np.testing.assert_array_equal(model([b.finish(b.call("cell", number=3))])[0].numpy(), np.full(H, 3))
    with pytest.raises(GraphError, match="attribute 'number' of cell 'cell' is 1099511627776; expected 32 bits"):
        model([b.finish(b.call("cell", number=2**40))])
