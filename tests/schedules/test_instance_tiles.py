"""Tiles of instances: the same results as the cell's own code, whatever the batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tvm import IRModule, tirx
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from relay_ext.batch_cells import own_params
from relay_ext.pipeline import cell_passes, run_passes
from schedules.cpu.general_cells import lower_blocks
from schedules.cpu.instance_tiles import NotTileable, TunedTile, tile_cell
from schedules.cpu.machine import Machine
from tests.golden import Golden

H = 16


@I.ir_module
class Mixture:
    @R.function
    def leaf(word: R.Tensor((), "int32"), table: R.Tensor((9, H), "float32")):
        R.func_attr({"num_input": 1})
        x = R.take(table, word, axis=0)
        return x

    @R.function
    def mix(
        word: R.Tensor((), "int32"),
        a: R.Tensor((H,), "float32"),
        b: R.Tensor((H,), "float32"),
        table: R.Tensor((9, H), "float32"),
        W: R.Tensor((H, H), "float32"),
        scale: R.Tensor((H,), "float32"),
    ):
        R.func_attr({"num_input": 3})
        gate = R.nn.softmax(R.matmul(R.add(a, R.take(table, word, axis=0)), W), axis=-1)
        y = R.multiply(R.matmul(gate, W), R.tanh(scale))
        z = R.add(y, b)
        return (z, gate)

    @R.function
    def total(rows: R.Tensor(("k", H), "float32"), W: R.Tensor((H, H), "float32")):
        R.func_attr({"num_input": 1})
        y = R.max(R.nn.softmax(R.matmul(rows, W), axis=-1), axis=0)
        return y


class Tiles:
    """Records with tiles that nobody tuned."""

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        self.sizes = sizes

    def stage_config(self, stage: Any, machine: Machine) -> None:
        return None

    def tiles(self, function: tirx.PrimFunc, per_instance: Sequence[Any]) -> tuple[TunedTile, ...]:
        try:
            modules = [IRModule({"main": tile_cell(function, per_instance, size)}) for size, _ in self.sizes]
        except NotTileable:
            return ()
        pairs = zip(self.sizes, modules, strict=True)
        return tuple(TunedTile(size, least, lower_blocks(module)) for (size, least), module in pairs)


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"table": (9, H), "W": (H, H), "scale": (H,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([(4, 1)], marks=pytest.mark.slow),
        pytest.param([(4, 4), (1, 1)], marks=pytest.mark.slow),
        [(8, 12), (4, 4)],
    ],
    ids=["four", "down to one", "late"],
)
def test_every_batch_size(
    sizes: list[tuple[int, int]], weights: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edbatch_tvm.backends.cpu.find_records", lambda *_: Tiles(sizes))
    model = eb.compile(Mixture, weights)
    for count in (1, 3, 4, 13, 29):
        check(model, count, weights)


def check(model: eb.Model, count: int, weights: dict[str, np.ndarray]) -> None:
    builder = model.builder()
    words = np.random.default_rng(count).integers(0, 9, (count, 3)).tolist()
    instances = []
    for one, two, three in words:
        a, b = builder.call("leaf", word=one), builder.call("leaf", word=two)
        z, gate = builder.call("mix", a, b, word=three)
        instances.append(builder.finish(builder.call("total", [z, gate, b])))
    result = model(instances)
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    for number, (one, two, three) in enumerate(words):
        a, b = wide["table"][one], wide["table"][two]
        gate = softmax((a + wide["table"][three]) @ wide["W"])
        z = gate @ wide["W"] * np.tanh(wide["scale"]) + b
        expected = softmax(np.stack([z, gate, b]) @ wide["W"]).max(0)
        np.testing.assert_allclose(result[number], expected, rtol=0, atol=1e-5)


def test_tile_text(golden: Golden) -> None:
    function = run_passes(Mixture, cell_passes())["mix"]
    golden("general/tile.txt", tile_cell(function, own_params(function), 4).script())


def test_a_symbolic_size_has_no_tile() -> None:
    function = run_passes(Mixture, cell_passes())["total"]
    with pytest.raises(NotTileable, match="'rows' has a size that differs from instance to instance"):
        tile_cell(function, own_params(function), 4)
