"""Which weights a model computes with: those it read last, however they are given; and a saved model is the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.errors import WeightError
from edbatch_tvm.runtime import Model

H = 9
CONSTANT = np.linspace(-1, 1, H, dtype=np.float32)


@I.ir_module
class Cells:
    """A table of padded rows; a stage; a cell outside stages that shares the stage's weight, with a constant."""

    @R.function
    def leaf(word: R.Tensor((), "int32"), table: R.Tensor((7, H), "float32")):
        R.func_attr({"num_input": 1})
        h = R.take(table, word, axis=0)
        return h

    @R.function
    def stage(x: R.Tensor((H,), "float32"), W: R.Tensor((H, H), "float32"), b: R.Tensor((H,), "float32")):
        R.func_attr({"num_input": 1})
        h = R.add(R.matmul(x, W), b)
        return h

    @R.function
    def folded(x: R.Tensor((H,), "float32"), W: R.Tensor((H, H), "float32"), b: R.Tensor((H,), "float32")):
        R.func_attr({"num_input": 1})
        h = R.matmul(x, R.add(R.multiply(W, W), R.const(CONSTANT)))  # computed from weights alone
        return h

    @R.function
    def general(x: R.Tensor((H,), "float32"), W: R.Tensor((H, H), "float32"), s: R.Tensor((), "float32")):
        R.func_attr({"num_input": 1})
        e = R.nn.softmax(R.multiply(R.add(R.add(x, W), R.const(CONSTANT)), s), axis=1)
        h = R.sum(e, axis=0)
        return h


def made(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"table": (7, H), "W": (H, H), "b": (H,), "s": ()}
    return {name: np.asarray(rng.uniform(-1, 1, shape), np.float32) for name, shape in shapes.items()}


def expected(weights: Mapping[str, np.ndarray]) -> np.ndarray:
    table, W, b, s = (weights[name].astype(np.float64) for name in ("table", "W", "b", "s"))
    x = table[3]
    e = np.exp((x + W + CONSTANT) * s)
    return np.stack([x, x @ W + b, x @ (W * W + CONSTANT), (e / e.sum(1, keepdims=True)).sum(0)])


def run(model: Model) -> np.ndarray:
    b = model.builder()
    leaf = b.call("leaf", word=3)
    outputs = [leaf, *(b.call(name, leaf) for name in ("stage", "folded", "general"))]
    return np.stack([np.asarray(one) for one in model([b.finish(outputs)])[0]])


def strided(array: np.ndarray) -> np.ndarray:
    wide = np.zeros((*array.shape[::-1], 2), array.dtype)
    wide[..., 0] = array.T
    return wide[..., 0].T


def torch_of(convert: Callable[[Any], Any]) -> Callable[[np.ndarray], Any]:
    return lambda array: convert(pytest.importorskip("torch").from_numpy(array.copy()))


def parameter(tensor: Any) -> Any:
    import torch

    return torch.nn.Parameter(tensor)


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "numpy": np.copy,
    "numpy-strided": strided,
    "numpy-fortran": lambda array: np.array(array, order="F"),
    "torch": torch_of(lambda tensor: tensor),
    "torch-transposed": torch_of(lambda tensor: tensor.t().contiguous().t() if tensor.ndim == 2 else tensor),
    "torch-parameter": torch_of(parameter),
    "tvm": tvm.runtime.tensor,
}

OPTIONS = {
    "cell": {},
    "op": {"granularity": "op"},
    "group": {"granularity": "group"},
    "cuda-emulated": {"target": "cuda-emulated"},
}


def scale(weights: Mapping[str, Any], factor: float) -> None:
    """Change `weights` where they lie."""
    for weight in weights.values():
        if hasattr(weight, "copyfrom"):
            weight.copyfrom(weight.numpy() * np.float32(factor))
        elif hasattr(weight, "detach"):
            weight.detach().mul_(factor)
        else:
            weight *= np.float32(factor)


def arrays(weights: Mapping[str, Any]) -> dict[str, np.ndarray]:
    plain = {name: one.detach() if hasattr(one, "detach") else one for name, one in weights.items()}
    return {name: np.array(one.numpy() if hasattr(one, "numpy") else one) for name, one in plain.items()}


@lru_cache
def model_of(option: str) -> Model:
    return eb.compile(Cells, made(0), **OPTIONS[option])


CASES = [
    pytest.param(option, form, marks=() if option == "cell" or form == "torch" else pytest.mark.slow)
    for option in OPTIONS
    for form in FORMS
]


def close(model: Model, weights: Mapping[str, np.ndarray]) -> None:
    np.testing.assert_allclose(run(model), expected(weights), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("option", "form"), CASES)
def test_a_model_has_the_weights_it_read_last(option: str, form: str, tmp_path: Path) -> None:
    model = model_of(option)

    def same_when_saved() -> None:
        if option == "cell" and form in ("numpy", "torch"):
            now = run(model)
            model.save(tmp_path / "model.edb")
            assert np.array_equal(run(eb.load(tmp_path / "model.edb")), now)

    first, second = ({name: FORMS[form](one) for name, one in made(seed).items()} for seed in (1, 2))
    model.refresh(first)
    close(model, made(1))
    same_when_saved()
    model.refresh(second)
    same_when_saved()
    model.refresh()
    close(model, made(2))
    scale(second, 1.5)
    if not form.startswith("torch"):
        close(model, made(2))
    same_when_saved()
    model.refresh()
    close(model, arrays(second))
    with pytest.raises(WeightError, match="missing weights"):
        model.refresh({"W": first["W"]})
    close(model, arrays(second))
    scale(second, 0.5)
    model.refresh()
    close(model, arrays(second))
    same_when_saved()


def test_cells_are_on_every_path() -> None:
    model = eb.compile(Cells, made(0))
    assert model.paths["stage"] == "stage"
    assert model.paths["general"].startswith("general")
    assert {kind for kind, _, _ in (key.partition(":") for key in model.held_weights())} == {
        "packed",
        "table",
        "weight",
    }


@pytest.mark.parametrize("form", ["numpy-strided", "torch"])
def test_loaded_models(form: str, tmp_path: Path) -> None:
    given = {name: FORMS[form](one) for name, one in made(1).items()}
    model = eb.compile(Cells, given)
    close(model, made(1))
    model.refresh(made(2))
    model.save(tmp_path / "model.edb")
    loaded = eb.load(tmp_path / "model.edb")
    loaded.refresh()
    assert np.array_equal(run(loaded), run(model))
    loaded.save(tmp_path / "again.edb")
    assert np.array_equal(run(eb.load(tmp_path / "again.edb")), run(model))
    scale(given, 0.5)
    loaded.refresh(given)
    close(loaded, arrays(given))
    scale(given, 0.5)
    loaded.refresh()
    close(loaded, arrays(given))
    other = eb.load(tmp_path / "model.edb", params=given)
    close(other, arrays(given))
    scale(given, 3)
    other.refresh()
    close(other, arrays(given))


def test_an_entry_that_is_another_array_now_is_read() -> None:
    weights = made(1)
    model = eb.compile(Cells, weights)
    weights["W"] = made(2)["W"]
    model.refresh()
    close(model, weights)


def test_torch_memory_is_shared_where_kernels_read_it_as_it_lies() -> None:
    torch = pytest.importorskip("torch")
    aligned = torch.from_numpy(np.from_dlpack(tvm.runtime.empty((H, H), "float32")))
    aligned.copy_(torch.from_numpy(made(1)["W"]))
    model = eb.compile(Cells, {**made(1), "W": aligned})
    aligned.mul_(2)
    old, new = expected(made(1)), expected({**made(1), "W": 2 * made(1)["W"]})
    leaf, stage, folded, general = run(model)
    np.testing.assert_allclose([leaf, stage, folded], old[:3], atol=1e-5)
    np.testing.assert_allclose(general, new[3], atol=1e-5)
    model.refresh()
    np.testing.assert_allclose(run(model), new, atol=1e-5)
