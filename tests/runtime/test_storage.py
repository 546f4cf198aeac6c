"""Values and weights of float32 kept in 16 bits: the float32 computation on rounded numbers, rounded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.compiler import load_model
from edbatch_tvm.errors import PlanError, TargetError
from edbatch_tvm.runtime.storage import given, held

H = 37


@I.ir_module
class Cells:
    @R.function
    def leaf(word: R.Tensor((), "int32"), table: R.Tensor((9, H), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            x = R.take(table, word, axis=0)
            R.output(x)
        return x

    @R.function
    def node(
        x: R.Tensor((H,), "float32"),
        rows: R.Tensor(("k", H), "float32"),
        W: R.Tensor((H, H), "float32"),
        b: R.Tensor((H,), "float32"),
    ):
        R.func_attr({"num_input": 2})
        with R.dataflow():
            y = R.tanh(R.add(R.matmul(x, W), R.add(R.sum(rows, axis=0), b)))
            R.output(y)
        return y

    @R.function
    def normal(x: R.Tensor((H,), "float32"), W: R.Tensor((H, H), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            y = R.nn.softmax(R.matmul(x, W))
            R.output(y)
        return y

    @R.function
    def general(x: R.Tensor((H,), "float32"), b: R.Tensor((H,), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            y = R.concat((x, R.multiply(x, b)))
            R.output(y)
        return y


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"table": (9, H), "W": (H, H), "b": (H,)}
    return {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def as_stored(array: Any, storage: str) -> np.ndarray:
    return given(held(np.asarray(array, np.float32), storage), "float32", storage)


def compute(model: eb.Model, nodes: list[tuple[str, dict[str, Any]]]) -> list[np.ndarray]:
    b = model.builder()
    return list(model([b.finish([b.call(cell, **arguments) for cell, arguments in nodes])])[0])


HASWELL = {"kind": "llvm", "mcpu": "haswell"}


@pytest.mark.parametrize(
    ("target", "storage", "unit"),
    [
        pytest.param("llvm", "bfloat16", 2.0**-8, id="host-bfloat16"),
        pytest.param(HASWELL, "float16", 2.0**-11, id="haswell-float16"),
        pytest.param("llvm", "float16", 2.0**-11, id="host-float16", marks=pytest.mark.slow),
        pytest.param(HASWELL, "bfloat16", 2.0**-8, id="haswell-bfloat16", marks=pytest.mark.slow),
    ],
)
def test_results_are_those_of_float32_on_rounded_numbers(storage: str, unit: float, target: Any) -> None:
    rng = np.random.default_rng(1)
    narrow = eb.compile(Cells, weights(), target=target, storage=storage)
    wide = eb.compile(Cells, {name: as_stored(one, storage) for name, one in weights().items()}, target=target)
    inputs = [as_stored(rng.uniform(-1, 1, H), storage) for _ in range(23)]
    nodes: list[tuple[str, dict[str, Any]]] = []
    for number, x in enumerate(inputs):
        nodes.append(("leaf", {"word": number % 9}))
        nodes.append(("node", {"x": x, "rows": inputs[: number % 4]}))
        nodes += [(cell, {"x": x}) for cell in ("normal", "general")]
    equal = 0
    for one, other in zip(compute(narrow, nodes), compute(wide, nodes), strict=True):
        assert one.dtype == np.float32
        wanted = as_stored(other, storage)
        np.testing.assert_allclose(one, wanted, rtol=2.01 * unit, atol=1e-6)
        equal += np.mean(one == wanted)
    assert equal / len(nodes) > 0.99


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_values_pass_from_node_to_node(storage: str) -> None:
    model = eb.compile(Cells, weights(), storage=storage)
    b = model.builder()
    leaf = b.call("leaf", word=3)
    first = b.call("node", x=leaf, rows=[leaf, leaf])
    second = b.call("node", x=first, rows=[first])
    instance = b.finish([first, second])
    one, two = model([instance])[0]
    (again,) = compute(model, [("node", {"x": one, "rows": [one]})])
    np.testing.assert_array_equal(again, two)
    result = model([instance])
    np.testing.assert_array_equal(result.value(second), two)
    np.testing.assert_array_equal(result.values([first, second]), [one, two])
    report = result.report
    plain = eb.compile(Cells, weights())([instance]).report
    assert (report.value_bytes, report.bytes_indexed) == (plain.value_bytes // 2, plain.bytes_indexed // 2)
    assert report.stored.weight_bytes == plain.stored.weight_bytes // 2
    assert f"storage    {storage}" in str(report)


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_nan_and_infinities_are_kept(storage: str) -> None:
    model = eb.compile(Cells, weights(), storage=storage)
    x = np.zeros(H, np.float32)
    special = np.array([0x7F800001, 0x7FFFFFFF, 0xFF80FFFF, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 0x80000000], np.uint32)
    x[: len(special)] = special.view(np.float32)
    (y,) = compute(model, [("general", {"x": x})])
    inf = np.inf
    np.testing.assert_array_equal(y[: len(special)], [np.nan] * 3 + [inf, -inf, inf, -0.0])
    assert np.signbit(y[6])


def test_bfloat16_is_the_nearest_number_and_of_two_the_even_one() -> None:
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 1 << 32, 100_000, np.uint32)
    bits[:50_000] &= 0xFFFF8000  # halves
    numbers = bits.view(np.float32)
    expected = torch.from_numpy(numbers.copy()).bfloat16().float().numpy()
    np.testing.assert_array_equal(as_stored(numbers, "bfloat16"), expected)


def test_models_are_saved_and_refreshed(tmp_path: Path) -> None:
    model = eb.compile(Cells, weights(), storage="bfloat16")
    nodes: list[tuple[str, dict[str, Any]]] = [("normal", {"x": np.linspace(-1, 1, H, dtype=np.float32)})]
    (before,) = compute(model, nodes)
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    np.testing.assert_array_equal(compute(loaded, nodes)[0], before)
    halved = {name: one / 2 for name, one in weights().items()}
    model.refresh(halved)
    (after,) = compute(model, nodes)
    np.testing.assert_array_equal(compute(load_model(tmp_path / "model", halved), nodes)[0], after)
    assert (after != before).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"storage": "int8"}, "storage 'int8' for target 'llvm'; expected one of float32, bfloat16, float16"),
        ({"storage": 16}, "storage 16 for target 'llvm'"),
        ({"target": "cuda-emulated"}, "storage 'bfloat16' for a GPU; expected one of float32"),
        ({"target": "numpy"}, "storage 'bfloat16' for target 'numpy'"),
        ({"dtype": "float64"}, "storage 'bfloat16' of cells in float64"),
        ({"training": True}, "storage 'bfloat16' of a model for training"),
        ({"granularity": "op"}, "storage 'bfloat16' at granularity 'op'; expected granularity=\"cell\""),
    ],
)
def test_what_has_no_storage_of_16_bits_says_so(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TargetError, PlanError)) as caught:
        eb.compile(Cells, weights(), **{"storage": "bfloat16", **options})
    assert message in str(caught.value)
